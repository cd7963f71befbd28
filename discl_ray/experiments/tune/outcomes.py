"""What a sweep is, and what became of its trials: records that say all a later run needs."""

from __future__ import annotations

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

DEV = "dev"
"""What a sweep goes by, under this name to Ray Tune: the first of METRICS that a task has, the mean over seeds."""


METRICS = ("val_macro_f1_ood", "val_top1_overall")


SEEN = "synthetic_seen"
"""In a trial's record: synthetic images up to an epoch, the mean over seeds; null where they were not told apart."""


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
    """Everything a trial has to know; small, and sent to each."""

    dimensions: tuple[Dimension, ...]
    points: tuple[Point, ...]
    """Drawn beforehand; empty where a search draws them one after the other."""
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
        return {
            d.key: d.values[v] if d.kind == "choice" else d.value(v)
            for d in self.dimensions
            for v in [parameters[d.key]]
        }

    def record(self, point: Point) -> str:
        """The file of a trial."""
        return record_file(point)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a trial."""

    point: Point
    rows: tuple[dict[str, Any], ...]
    """What was reported, by epoch."""
    epochs: int
    """What it was to train."""
    reason: str = ""
    """Why it failed."""
    judged: bool = False
    """Whether the scheduler has stopped it."""

    @property
    def over(self) -> bool:
        """Whether there is nothing left to train."""
        return self.status == "finished" or self.judged

    @property
    def seen(self) -> float | None:
        """Synthetic images it was trained on, the mean over seeds; None if that was not recorded."""
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
        return "failed" if self.reason else "finished" if self.epoch == self.epochs else "stopped"


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
    """Writes a trial's record; without `rows` those that were there stay."""
    name = sweep.record(point)
    kept: Sequence[Mapping[str, Any]] = rows or ()
    if rows is None and sweep.store.exists(name):
        kept = sweep.store.read_json(name)["rows"]
    sweep.store.write_json(
        name, {"point": point, "epochs": epochs, "rows": list(kept), "reason": reason}
    )


def read_outcome(store: Store, name: str) -> Outcome:
    """What a record says of its trial.

    Raises IntegrityError if it is damaged.
    """
    with store.reading(name, TRAIN_AGAIN):
        found = store.read_json(name, TRAIN_AGAIN)
        if record_file(found["point"]) != name or not all(
            {"epoch", "metric", DEV} <= row.keys() for row in found["rows"]
        ):
            raise ValueError("no record of this trial")
        return Outcome(
            point=found["point"],
            rows=tuple(found["rows"]),
            epochs=found["epochs"],
            reason=found["reason"],
            judged=found.get("judged", False),
        )


def read_outcomes(store: Store) -> list[Outcome]:
    """Every trial that began, best first: those that finished by their metric, then those stopped by how far they came, then failures.

    A trial that was stopped cannot win: it was behind when it was, and its metric is of another epoch.
    """
    order = {"finished": 0, "stopped": 1, "failed": 2}

    def place(found: Outcome) -> tuple[int, int, float]:
        far = found.epoch if found.status == "stopped" else 0
        return order[found.status], -far, -found.dev if math.isfinite(found.dev) else math.inf

    return sorted((read_outcome(store, name) for name in store.list("trials", ".json")), key=place)


def is_complete(store: Store) -> bool:
    """Whether a sweep came to its end and all it came to can be read; says what cannot."""
    if not store.exists(MANIFEST):
        return False
    try:
        remedy = "the sweep is looked through again"
        with store.reading(MANIFEST, remedy):
            trials = int(store.read_json(MANIFEST, remedy)["trials"])
        return len(read_outcomes(store)) == trials
    except IntegrityError as error:
        print(f"  {error}", flush=True)
        return False


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The best of those that finished; raises DisclError if none did."""
    if not outcomes or outcomes[0].status != "finished":
        reasons = dict.fromkeys(o.reason for o in outcomes if o.reason)
        raise DisclError("no trial finished" + "".join(f"\n  {reason}" for reason in reasons))
    return outcomes[0]
