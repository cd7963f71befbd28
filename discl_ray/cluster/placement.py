"""Puts a graph's processes on the GPUs that `demand` chose, with one placement group per GPU.

Without groups Ray would put two scorers of 0.2 on one GPU and then have no space for the second
generator's 0.8. Groups do not wait for each other: GPUs that are up work while others start. A
process that died is restarted on its own GPU, whichever of the processes there it was.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from discl_ray.cluster.demand import Demand


class _Place(NamedTuple):
    """Where one actor of a stage runs."""

    actor: str
    """The actor's name in Ray, by which the place is found taken or free."""
    group: Any


@dataclass(frozen=True)
class Placement:
    """The GPUs reserved for a graph."""

    demand: Demand
    groups: tuple[Any, ...] = ()
    """A placement group per GPU."""
    name: str = field(default_factory=lambda: f"discl-{uuid.uuid4().hex[:8]}")

    def resources(self, stage: int) -> dict[str, Any]:
        """Resource arguments of `map_batches` for a stage.

        An actor with a GPU reserves no CPU, so that it never waits for one.
        """
        part = self.demand.parts[stage]
        memory = {"memory": part.memory} if part.memory else {}
        if not part.num_gpus:
            return {"num_cpus": 1, **memory}
        return {
            "num_cpus": 0,
            "num_gpus": part.num_gpus,
            **memory,
            "ray_remote_args_fn": self._arguments_of(stage),
        }

    def _arguments_of(self, stage: int) -> Callable[[], dict[str, Any]]:
        """What Ray Data calls before it starts an actor: the first place that no actor lives in."""
        places = self._places(stage)

        def arguments() -> dict[str, Any]:
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

            free = (place for place in places if not _lives(place.actor))
            actor, group = next(free, places[0])
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
            return {"scheduling_strategy": strategy, "name": actor}

        return arguments

    def _places(self, stage: int) -> list[_Place]:
        places: list[_Place] = []
        for group, counts in zip(self.groups, self.demand.gpus, strict=True):
            for _ in range(counts[stage]):
                places.append(_Place(f"{self.name}-{stage}-{len(places)}", group))
        return places


def _lives(name: str) -> bool:
    """Whether an actor of that name is alive."""
    import ray

    try:
        ray.get_actor(name)
    except ValueError:
        return False
    return True


def _bundle(demand: Demand, counts: Sequence[int]) -> dict[str, float]:
    """What is reserved with a GPU that has so many processes of each stage."""
    memory = 0.0
    for part, count in zip(demand.parts, counts, strict=True):
        memory += count * part.memory
    return {"GPU": 1.0, "memory": memory} if memory else {"GPU": 1.0}


@contextmanager
def placed(demand: Demand) -> Iterator[Placement]:
    """Reserves the GPUs of a demand, each as a whole, while a graph runs; Ray must be running.

    Returns without waiting until the GPUs are there.
    """
    import ray

    groups = tuple(ray.util.placement_group([_bundle(demand, each)]) for each in demand.gpus)
    try:
        yield Placement(demand, groups)
    finally:
        for group in groups:
            ray.util.remove_placement_group(group)
