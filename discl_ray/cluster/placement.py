"""Puts a graph's processes where `demand` says: one placement group for each GPU, so that none takes another's place.

Ray alone would put two scorers of 0.2 on one GPU and then have no room for the second generator's 0.8. Groups do not wait for each
other: GPUs that are up work while others start. What died comes back to its own place, whichever of the processes on it died.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from discl_ray.cluster.demand import Demand


@dataclass(frozen=True)
class Placement:
    """The reserved GPUs of a graph."""

    demand: Demand
    groups: tuple[Any, ...] = ()
    """A placement group for each GPU."""
    name: str = field(default_factory=lambda: f"discl-{uuid.uuid4().hex[:8]}")

    def resources(self, stage: int) -> dict[str, Any]:
        """Keywords of `map_batches` for a stage. A GPU actor reserves no CPU, so that it can never wait for one."""
        part = self.demand.parts[stage]
        if not part.num_gpus:
            return {"num_cpus": 1}
        return {"num_cpus": 0, "num_gpus": part.num_gpus, "ray_remote_args_fn": self._places(stage)}

    def _places(self, stage: int) -> Callable[[], dict[str, Any]]:
        """Called by Ray Data before each actor of a stage: the first place that no living actor holds."""
        places: list[tuple[str, Any]] = []
        for group, counts in zip(self.groups, self.demand.gpus, strict=True):
            places += [
                (f"{self.name}-{stage}-{len(places) + i}", group) for i in range(counts[stage])
            ]

        def arguments() -> dict[str, Any]:
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

            name, group = next((place for place in places if not _lives(place[0])), places[0])
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
            return {"scheduling_strategy": strategy, "name": name}

        return arguments


def _lives(name: str) -> bool:
    import ray

    try:
        ray.get_actor(name)
    except ValueError:
        return False
    return True


@contextmanager
def placed(demand: Demand) -> Iterator[Placement]:
    """Reserves the GPUs of a demand, each whole, for the length of a graph; Ray has to be there. Waits for none."""
    import ray

    groups = tuple(ray.util.placement_group([{"GPU": 1}]) for _ in demand.gpus)
    try:
        yield Placement(demand, groups)
    finally:
        for group in groups:
            ray.util.remove_placement_group(group)
