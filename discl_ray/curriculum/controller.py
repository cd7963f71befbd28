"""The controller: it chooses each epoch's levels and remembers what was measured.

`Controller` is the protocol the training loop knows; `LocalController` is the thing itself, in process; `actor.py` puts it into a
named Ray actor. The checkpoint is the only durable truth: a controller that lost its past refuses to record and is loaded from
it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from discl_ray.core.lam import REAL
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.progress import Progress, from_metrics
from discl_ray.curriculum.strategies import Choice, Situation, strategy_of


class Controller(Protocol):
    """What the training loop asks of a curriculum."""

    def choose(self, epoch: int, progress: Mapping[int, Progress] | None = None) -> Choice | None:
        """What an epoch (from 1) trains on, or None if an earlier epoch is not recorded.

        If the answer says `explore`, progress is to be measured first and the question asked again with it.
        """
        ...

    def record(self, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """Notes an epoch's metrics; False, and nothing noted, if an earlier epoch is missing. Later epochs are forgotten."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything needed to go on, as JSON values."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes back (or forward) to a state."""
        ...


class LocalController:
    """The curriculum of one training run."""

    def __init__(self, config: CurriculumConfig, levels: tuple[int, ...], seed: int) -> None:
        self.config, self.levels, self.seed = config, levels, seed
        self.history: dict[int, dict[str, Any]] = {}

    def choose(self, epoch: int, progress: Mapping[int, Progress] | None = None) -> Choice | None:
        """See `Controller`."""
        if epoch > 1 and epoch - 1 not in self.history:
            return None
        before = self.history.get(epoch - 1, {})
        situation = Situation(
            epoch=epoch,
            levels=self.levels,
            config=self.config,
            seed=self.seed,
            progress=progress,
            past=from_metrics(before) or None,
            previous=round(before["lam"] * REAL) if "lam" in before else None,
        )
        return strategy_of(self.config)(situation)

    def record(self, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """See `Controller`."""
        if any(e not in self.history for e in range(1, epoch)):
            return False
        self.history = {e: m for e, m in self.history.items() if e < epoch} | {epoch: dict(metrics)}
        return True

    def state(self) -> dict[str, Any]:
        """See `Controller`."""
        return {"history": {str(e): m for e, m in self.history.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """See `Controller`."""
        self.history = {int(e): dict(m) for e, m in state["history"].items()}
