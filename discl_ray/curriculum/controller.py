"""The controller: it chooses each epoch's levels and remembers what was measured.

`Controller` is the protocol the training loop knows; `LocalController` is the thing itself, in process; `actor.py` puts it into a
named Ray actor. The checkpoint is the only durable truth: a controller that lost its past refuses to record and is loaded from
it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from discl_ray.curriculum.strategies import STRATEGIES, Choice


class Controller(Protocol):
    """What the training loop asks of a curriculum."""

    def choose(self, epoch: int) -> Choice | None:
        """The levels of an epoch (from 1), or None if an earlier epoch is not recorded."""
        ...

    def record(self, epoch: int, metrics: Mapping[str, float]) -> bool:
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

    def __init__(self, strategy: str, levels: tuple[int, ...], curriculum_epochs: int) -> None:
        self.strategy, self.levels, self.curriculum_epochs = strategy, levels, curriculum_epochs
        self.history: dict[int, dict[str, float]] = {}

    def choose(self, epoch: int) -> Choice | None:
        """See `Controller`."""
        if epoch - 1 > 0 and epoch - 1 not in self.history:
            return None
        return STRATEGIES[self.strategy](epoch, self.levels, self.curriculum_epochs)

    def record(self, epoch: int, metrics: Mapping[str, float]) -> bool:
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
