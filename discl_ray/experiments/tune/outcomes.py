"""A sweep, and the recorded outcomes of its trials, from which it is resumed."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from discl_ray.config import Config
from discl_ray.core.ids import stable_id
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.storage import Store
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.experiments.tune.space import Dimension, Point
from discl_ray.spectrum.open import Spectrum

log = logging.getLogger(__name__)

DEV = "dev"
"""The metric of a sweep, by this name in Ray Tune: the first of METRICS a task has, the mean over
seeds."""


METRICS = ("val_macro_f1_ood", "val_top1_overall")


SEEN = "synthetic_seen"
"""In a trial's record: synthetic images up to an epoch, the mean over seeds; null if unknown."""


TRAIN_AGAIN = "its trial is trained again"


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """One seed of a sweep."""

    config: Config
    spectrum: Spectrum
    start: Store | None
    """The finished start run; None starts from nothing."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Everything a trial needs; small, and sent to each."""

    dimensions: tuple[Dimension, ...]
    points: tuple[Point, ...]
    """Drawn beforehand; empty if a search draws them one after the other."""
    seeded: tuple[Seeded, ...]
    store: Store

    @property
    def config(self) -> Config:
        """The configuration the points are laid over."""
        return self.seeded[0].config

    def point(self, parameters: Mapping[str, Any]) -> Point:
        """The point of a trial from what Ray Tune gave it."""
        if self.points:
            return self.points[parameters["point"]]
        point: Point = {}
        for dimension in self.dimensions:
            drawn = parameters[dimension.key]
            if dimension.kind == "choice":  # Ray Tune draws its number
                point[dimension.key] = dimension.values[drawn]
            else:
                point[dimension.key] = dimension.value(drawn)
        return point

    def record(self, point: Point) -> str:
        """The file of a trial."""
        return record_file(point)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a trial."""

    point: Point
    rows: tuple[dict[str, Any], ...]
    """What was reported, by epoch."""
    epochs: int
    """How many it was to train."""
    reason: str = ""
    """Why it failed."""
    judged: bool = False
    """Whether the scheduler stopped it."""

    @property
    def over(self) -> bool:
        """Whether there is nothing left to train."""
        return self.status == "finished" or self.judged

    @property
    def seen(self) -> float | None:
        """Synthetic images it was trained on, the mean over seeds; None if not recorded."""
        return self.rows[-1].get(SEEN) if self.rows else None

    @property
    def epoch(self) -> int:
        """The last epoch that was reported."""
        return self.rows[-1]["epoch"] if self.rows else 0

    @property
    def dev(self) -> float:
        """The metric of the weights it would leave, NaN without one."""
        return self.rows[-1][DEV] if self.rows else math.nan

    @property
    def status(self) -> str:
        """finished, failed, or stopped before its end."""
        if self.reason:
            return "failed"
        return "finished" if self.epoch == self.epochs else "stopped"


def record_file(point: Point) -> str:
    """The name of a trial's record in the folder of its sweep."""
    return f"trials/{stable_id(point)[:12]}.json"


def write_outcome(
    sweep: Sweep,
    point: Point,
    *,
    rows: Sequence[Mapping[str, Any]] | None,
    epochs: int,
    reason: str = "",
) -> None:
    """Writes a trial's record; without `rows` it keeps those it has."""
    name = sweep.record(point)
    kept: Sequence[Mapping[str, Any]] = rows or ()
    if rows is None and sweep.store.exists(name):
        kept = sweep.store.read_json(name)["rows"]
    record = {"point": point, "epochs": epochs, "rows": list(kept), "reason": reason}
    sweep.store.write_json(name, record)


def read_outcome(store: Store, name: str) -> Outcome:
    """What a record says of its trial.

    Raises IntegrityError if it is damaged.
    """
    with store.reading(name, TRAIN_AGAIN):
        found = store.read_json(name, TRAIN_AGAIN)
        complete = all({"epoch", "metric", DEV} <= row.keys() for row in found["rows"])
        if record_file(found["point"]) != name or not complete:
            raise ValueError("no record of this trial")
        return Outcome(
            point=found["point"],
            rows=tuple(found["rows"]),
            epochs=found["epochs"],
            reason=found["reason"],
            judged=found.get("judged", False),
        )


def read_outcomes(store: Store) -> list[Outcome]:
    """Every trial that began, best first.

    Finished trials are ordered by their metric, then come stopped ones by their epoch, then failed
    ones. A stopped trial cannot win: it was behind, and its metric is of an earlier epoch.
    """
    names = store.list("trials", ".json")
    return sorted((read_outcome(store, name) for name in names), key=_rank)


def _rank(outcome: Outcome) -> tuple[int, int, float]:
    """What trials are sorted by, the best first."""
    status = {"finished": 0, "stopped": 1, "failed": 2}[outcome.status]
    epoch = outcome.epoch if outcome.status == "stopped" else 0
    dev = outcome.dev if math.isfinite(outcome.dev) else -math.inf
    return status, -epoch, -dev


def is_complete(store: Store) -> bool:
    """Whether a sweep is complete and its records can be read; logs what cannot."""
    if not store.exists(MANIFEST):
        return False
    try:
        remedy = "the sweep's trials are checked again"
        with store.reading(MANIFEST, remedy):
            trials = int(store.read_json(MANIFEST, remedy)["trials"])
        return len(read_outcomes(store)) == trials
    except IntegrityError as error:
        log.info("%s", error)
        return False


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The best of those that finished; raises DisclError if none did."""
    if not outcomes or outcomes[0].status != "finished":
        reasons = dict.fromkeys(o.reason for o in outcomes if o.reason)
        raise DisclError("no trial finished" + "".join(f"\n  {reason}" for reason in reasons))
    return outcomes[0]
