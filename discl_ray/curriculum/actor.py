"""The controller as a named, async Ray actor, `curriculum-{run}`, and a worker's proxy for it.

The actor keeps nothing on disk. If it dies, Ray restarts it empty; it then refuses to record or to
choose, and the proxy loads it from the state the worker saw last, which is what the checkpoint
holds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError

from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.controller import LocalController
from discl_ray.curriculum.progress import ByLevel
from discl_ray.curriculum.strategies import Choice, Levels
from discl_ray.errors import IntegrityError

TRIES = 20
"""How often an actor that is down is asked again; it is back within a second or two."""

LONGEST_WAIT_S = 1.0
"""Between two tries."""


class ControllerActor:
    """A `LocalController` on Ray. Async: `state()` does not block training, nor wait for it."""

    def __init__(self, config: CurriculumConfig, levels: Levels, seed: int) -> None:
        self._controller = LocalController(config, levels, seed)

    async def choose(self, epoch: int, progress: ByLevel | None) -> Choice | None:
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
    """The name by which `ray.get_actor` finds a run's controller."""
    return f"curriculum-{run}"


def start_controller(run: str, config: CurriculumConfig, levels: Levels, seed: int) -> Any:
    """Creates the run's controller, or finds it; the actor lives as long as the returned handle."""
    # Ray's decorator hides the class's signature from type checkers; as a call it stays a class
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(ControllerActor)
    options = actor.options(name=actor_name(run), get_if_exists=True)
    return options.remote(config, levels, seed)


class ActorController:
    """A `Controller` that asks the named actor."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.last_state: dict[str, Any] = {"history": {}}
        """What the actor is known to have recorded; it is loaded from this after a restart."""

    def _ask(self, method: str, *args: object) -> Any:
        """The actor's answer, after it has been loaded again if it was restarted.

        Raises IntegrityError if it is not back, or still has no answer, after TRIES.
        """
        for number in range(TRIES):
            try:
                answer: Any = ray.get(getattr(self.handle, method).remote(*args))
                if answer is not None and answer is not False:
                    return answer
                # a restarted actor has no history, and so no answer
                ray.get(self.handle.load.remote(self.last_state))
            except RayActorError:
                _wait(number)
        raise IntegrityError(
            f"the curriculum's actor did not answer {method}{args} "
            "after being loaded from the checkpoint"
        )

    def choose(self, epoch: int, progress: ByLevel | None = None) -> Choice | None:
        """See `Controller`."""
        return self._ask("choose", epoch, progress)

    def record(self, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """See `Controller`."""
        self._ask("record", epoch, dict(metrics))
        history = self.last_state["history"]
        earlier = {e: record for e, record in history.items() if int(e) < epoch}
        self.last_state = {"history": earlier | {str(epoch): dict(metrics)}}
        return True

    def state(self) -> dict[str, Any]:
        """The state as this worker saw it last."""
        return self.last_state

    def load(self, state: Mapping[str, Any]) -> None:
        """See `Controller`; raises IntegrityError if the actor is not back after TRIES."""
        self.last_state = dict(state)
        for number in range(TRIES):
            try:
                ray.get(self.handle.load.remote(self.last_state))
                return
            except RayActorError:
                _wait(number)
        raise IntegrityError("the curriculum's actor cannot be loaded from the checkpoint")


def _wait(number: int) -> None:
    """Waits before the next try, longer each time."""
    time.sleep(min(0.1 * number, LONGEST_WAIT_S))
