"""The controller as a named Ray actor, `curriculum-{run}`, and the proxy by which a worker talks to it.

The actor keeps nothing on disk. If it dies, Ray restarts it empty; it then refuses to record or to choose, and the proxy loads it
from the state the worker last saw, which is what the checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError

from discl_ray.curriculum.controller import LocalController
from discl_ray.curriculum.strategies import Choice
from discl_ray.errors import IntegrityError

ControllerActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(LocalController)


def start_controller(run: str, strategy: str, levels: tuple[int, ...], curriculum_epochs: int) -> Any:
    """Creates the run's controller, or finds it; returns the actor's handle, which keeps it alive."""
    return ControllerActor.options(name=f"curriculum-{run}", get_if_exists=True).remote(strategy, levels, curriculum_epochs)


class ActorController:
    """A `Controller` that asks the named actor."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.seen: dict[str, Any] = {"history": {}}

    def _ask(self, method: str, *args: object) -> Any:
        for _ in range(3):
            try:
                answer = ray.get(getattr(self.handle, method).remote(*args))
            except RayActorError:
                continue
            if answer is None or answer is False:  # it was restarted and has lost its past
                ray.get(self.handle.load.remote(self.seen))
                continue
            return answer
        raise IntegrityError(f"the curriculum's actor did not answer {method}{args} after being loaded from the checkpoint")

    def choose(self, epoch: int) -> Choice | None:
        """See `Controller`."""
        return self._ask("choose", epoch)

    def record(self, epoch: int, metrics: Mapping[str, float]) -> bool:
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
        ray.get(self.handle.load.remote(self.seen))
