"""The controller as a named, async Ray actor, `curriculum-{run}`, and the proxy by which a worker talks to it.

The actor keeps nothing on disk. If it dies, Ray restarts it empty; it then refuses to record or to choose, and the proxy loads it
from the state the worker last saw, which is what the checkpoint holds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError

from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.controller import LocalController
from discl_ray.curriculum.progress import Progress
from discl_ray.curriculum.strategies import Choice
from discl_ray.errors import IntegrityError

TRIES = 20
"""How often a question is put to an actor that is down; it is back within a second or two."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class ControllerActor:
    """A `LocalController` on Ray. Async, so that somebody who looks at it (`state`) never waits for the run, nor the run for him."""

    def __init__(self, config: CurriculumConfig, levels: tuple[int, ...], seed: int) -> None:
        self._controller = LocalController(config, levels, seed)

    async def choose(self, epoch: int, progress: Mapping[int, Progress] | None) -> Choice | None:
        """See `Controller`."""
        return self._controller.choose(epoch, progress)

    async def record(self, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """See `Controller`."""
        return self._controller.record(epoch, metrics)

    async def state(self) -> dict[str, Any]:
        """See `Controller`."""
        return self._controller.state()

    async def load(self, state: Mapping[str, Any]) -> None:
        """See `Controller`."""
        self._controller.load(state)


def actor_name(run: str) -> str:
    """Under which `ray.get_actor` finds a run's controller."""
    return f"curriculum-{run}"


def start_controller(run: str, config: CurriculumConfig, levels: tuple[int, ...], seed: int) -> Any:
    """Creates the run's controller, or finds it; returns the actor's handle, which keeps it alive."""
    actor: Any = ControllerActor
    return actor.options(name=actor_name(run), get_if_exists=True).remote(config, levels, seed)


class ActorController:
    """A `Controller` that asks the named actor."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.seen: dict[str, Any] = {"history": {}}

    def _ask(self, method: str, *args: object) -> Any:
        for number in range(TRIES):
            try:
                answer = ray.get(getattr(self.handle, method).remote(*args))
                if answer is not None and answer is not False:
                    return answer
                ray.get(
                    self.handle.load.remote(self.seen)
                )  # it was restarted and has lost its past
            except RayActorError:
                time.sleep(min(0.1 * number, 1.0))
        raise IntegrityError(
            f"the curriculum's actor did not answer {method}{args} after being loaded from the checkpoint"
        )

    def choose(self, epoch: int, progress: Mapping[int, Progress] | None = None) -> Choice | None:
        """See `Controller`."""
        return self._ask("choose", epoch, progress)

    def record(self, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """See `Controller`."""
        self._ask("record", epoch, dict(metrics))
        past = {e: m for e, m in self.seen["history"].items() if int(e) < epoch}
        self.seen = {"history": past | {str(epoch): dict(metrics)}}
        return True

    def state(self) -> dict[str, Any]:
        """What this worker last saw."""
        return self.seen

    def load(self, state: Mapping[str, Any]) -> None:
        """See `Controller`."""
        self.seen = dict(state)
        for number in range(TRIES):
            try:
                return ray.get(self.handle.load.remote(self.seen))
            except RayActorError:
                time.sleep(min(0.1 * number, 1.0))
        raise IntegrityError("the curriculum's actor cannot be loaded from the checkpoint")
