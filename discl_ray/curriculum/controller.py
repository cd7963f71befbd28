"""The controller: asks the strategy for each epoch's levels and remembers what was measured.

The configured function of `strategies.py` chooses; the controller gives it the epoch, the last
epoch's record and the progress just measured. The training loop asks once an epoch.

`Controller` is the protocol the training loop knows; `LocalController` implements it in process,
and `actor.py` puts that into a named Ray actor. The checkpoint is the only durable truth: a
controller that lost its history refuses to record and is loaded from the checkpoint again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from discl_ray.core.lam import lam_to_pct
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.progress import ByLevel, from_metrics
from discl_ray.curriculum.strategies import Choice, Levels, Situation, strategy_of

Record = dict[str, Any]
"""What is recorded of an epoch, as JSON values."""


class Controller(Protocol):
    """What the training loop asks of a curriculum."""

    def choose(self, epoch: int, progress: ByLevel | None = None) -> Choice | None:
        """What an epoch (from 1) trains on, or None if an earlier epoch is not recorded.

        If the answer says `explore`, progress is to be measured first and the question asked again
        with it.
        """
        ...

    def record(self, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """Stores an epoch's metrics and forgets later epochs.

        False, and nothing is stored, if an earlier epoch is missing.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Everything needed to go on, as JSON values."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Replaces the history by that of a state."""
        ...


class LocalController:
    """The curriculum of one training run; `levels` are λ in percent, ascending, 100 last."""

    def __init__(self, config: CurriculumConfig, levels: Levels, seed: int) -> None:
        self.config = config
        self.levels = levels
        self.seed = seed
        self.history: dict[int, Record] = {}

    def choose(self, epoch: int, progress: ByLevel | None = None) -> Choice | None:
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
            previous=_recorded_level(before),
        )
        return strategy_of(self.config)(situation)

    def record(self, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """See `Controller`."""
        earlier = range(1, epoch)
        if any(e not in self.history for e in earlier):
            return False
        self.history = {e: self.history[e] for e in earlier}
        self.history[epoch] = dict(metrics)
        return True

    def state(self) -> dict[str, Any]:
        """See `Controller`."""
        history = {str(epoch): metrics for epoch, metrics in self.history.items()}
        return {"history": history}

    def load(self, state: Mapping[str, Any]) -> None:
        """See `Controller`."""
        history = state["history"]
        self.history = {int(epoch): dict(metrics) for epoch, metrics in history.items()}


def _recorded_level(record: Mapping[str, Any]) -> int | None:
    """The level that an epoch trained on, in percent; None if its record names none."""
    if "lam_pct" in record:
        return record["lam_pct"]
    if "lam" in record:  # the record of an earlier version
        return lam_to_pct(round(record["lam"], 2))
    return None
