"""Phase 2: the table that training opens, and what is computed for an epoch before its first image.

PyTorch is imported where a step needs it, so that the others start quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.scale_steps import LEVELS, Step, config, photograph
from discl_ray.core.lam import REAL
from discl_ray.core.storage import Store
from discl_ray.curriculum.epoch_order import Pools, epoch_order
from discl_ray.curriculum.strategies import Choice
from discl_ray.train.images.segments import ROWS, write_segment
from discl_ray.train.images.table import TableRef, open_table

SIDE = 8
"""Of a table's images, in pixels."""

SEGMENT = 4_096
"""Rows of a segment."""

PROBE_LEVEL = 3
"""Strength of every class: each is probed at four levels."""


@dataclass(frozen=True)
class Pool:
    """Columns of an image table: half real, half synthetic."""

    label: Any
    lam_pct: Any
    role: Any
    hard: Any
    classes: int = 8142

    @classmethod
    def of(cls, count: int) -> Pool:
        """Labels as in iNaturalist 2018, ten levels."""
        rng = np.random.default_rng(count)
        real = count // 2
        label = rng.integers(cls.classes, size=count)
        lam_pct = np.where(np.arange(count) < real, REAL, rng.choice(LEVELS, size=count))
        role = np.full(count, "train")
        return cls(label, lam_pct, role, (lam_pct == REAL) & (label > cls.classes // 2))

    def pools(self) -> Pools:
        """The rows by what they are."""
        return Pools.of(
            label=self.label,
            lam_pct=self.lam_pct,
            role=self.role,
            hard=self.hard,
            num_classes=self.classes,
        )


def order_one_level(pools: Pools) -> None:
    """An epoch's order at one level."""
    curriculum = config().curriculum
    epoch_order(pools, Choice(levels=(50,)), curriculum, seed=0, epoch=1)


def order_all_levels(pools: Pools) -> None:
    """An epoch's order at all levels."""
    curriculum = config().curriculum
    epoch_order(pools, Choice(levels=LEVELS), curriculum, seed=0, epoch=1)


def write_one_segment(folder: Path, count: int) -> None:
    """A table of one segment, which is named as often as is needed to have `count` rows."""
    rows = min(SEGMENT, count)
    label = np.arange(rows) % Pool.classes
    columns = {
        "sample_id": [f"class_{number:04d}/{number:08d}.jpg" for number in range(rows)],
        "label": pa.array(label, pa.int32()),
        "lam_pct": pa.array(np.resize(LEVELS, rows), pa.int32()),
        "role": ["train"] * rows,
        "hard": [False] * rows,
        "domain": [""] * rows,
    }
    image = {"bytes": photograph(3 * SIDE * SIDE), "path": None}
    store = Store.at(folder)
    table = pa.table(columns, schema=ROWS)
    segment = write_segment(store, table, ((row, image) for row in range(rows)), SIDE, "decoded")
    segments = (segment,) * max(1, count // rows)
    TableRef(store=store, name="TABLE.json", side=SIDE, mode="decoded", segments=segments).write({})


def _epoch_run(_folder: Path, count: int) -> Any:
    """A training run that is about to begin an epoch; its model recognises nothing."""
    import torch

    from discl_ray.core.arrays import Bools, Floats
    from discl_ray.train.augment.class_strength import Probes
    from discl_ray.train.augment.config import AugmentConfig
    from discl_ray.train.images.table import ImageTable
    from discl_ray.train.learners.learner import ALONE, TrainJob
    from discl_ray.train.loop import TrainingRun

    class Unseeing(TrainingRun):
        """Its model is not asked: only what is computed around it counts."""

        def _recognised(self, probes: Probes, parameters: Floats) -> Bools:
            return np.zeros(len(probes.rows), bool)

        def update(self) -> None:
            """The strengths of an epoch's classes."""
            self._update_strengths(1)

    whole = config()
    pool = Pool.of(count)
    augment = AugmentConfig(kind="cuda")
    job = TrainJob(
        seed=0,
        train=whole.train.model_copy(update={"augment": augment}),
        curriculum=whole.curriculum,
        names=tuple(str(label) for label in range(pool.classes)),
        groups=dict.fromkeys(range(pool.classes), "few"),
        counts=tuple(np.bincount(pool.label, minlength=pool.classes).tolist()),
    )
    images = np.broadcast_to(np.zeros(3, np.uint8), (count, SIDE, SIDE, 3))
    table = ImageTable(
        images=images, label=pool.label, lam_pct=pool.lam_pct, role=pool.role, hard=pool.hard
    )
    controller: Any = None
    run = Unseeing(job, table, controller, ALONE, torch.device("cpu"), 1)
    run.strength[:] = PROBE_LEVEL
    return run


def _drawing(_folder: Path, count: int) -> Callable[[], object]:
    from discl_ray.train.augment.augment import draw_parameters

    return lambda: draw_parameters(count, seed=0, epoch=1)


TRAINING = (
    Step(
        name="open_table",
        title="the training table opened",
        count=100_000,
        prepare=write_one_segment,
        load=lambda folder, _count: TableRef.read(Store.at(folder)),
        run=open_table,
    ),
    Step(
        name="pools",
        title="an image table's rows by class and level, 8,142 classes",
        count=100_000,
        load=lambda _folder, count: Pool.of(count),
        run=lambda pool: pool.pools(),
    ),
    Step(
        name="order_one",
        title="an epoch's order, one level",
        count=100_000,
        load=lambda _folder, count: Pool.of(count).pools(),
        run=order_one_level,
    ),
    Step(
        name="order_all",
        title="an epoch's order, all levels",
        count=100_000,
        load=lambda _folder, count: Pool.of(count).pools(),
        run=order_all_levels,
    ),
    Step(
        name="strengths",
        title="an epoch's strengths of 8,142 classes, without the model",
        count=100_000,
        load=_epoch_run,
        run=lambda run: run.update(),
    ),
    Step(
        name="parameters",
        title="an epoch's random numbers of augmentation",
        count=100_000,
        load=_drawing,
        run=lambda draw: draw(),
    ),
)
