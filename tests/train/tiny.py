"""A table, a job and a Ray Train worker that can be killed, all tiny.

For tests of training on several workers and of interruptions.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from discl_ray.core.lam import REAL
from discl_ray.core.storage import Store
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.train.config import TrainConfig
from discl_ray.train.images.segments import ROWS, write_segment
from discl_ray.train.images.table import INDEX, ImageTable, TableRef, open_table
from discl_ray.train.learners.learner import TrainJob

SIDE = 8
LEVELS = (0, 50, 100)
COUNTS = (3, 9, 9, 4)
"""Real training images by class; 0 and 3 are hard. An epoch has 46 images."""


def make_pixels(count: int, label: np.ndarray, seed: int = 0) -> np.ndarray:
    """Noise over a ramp that turns with the class, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-60, 60, SIDE)
    angle = 2 * np.pi * np.asarray(label) / len(COUNTS)
    mean = 128 + np.cos(angle)[:, None, None] * ramp[:, None] + np.sin(angle)[:, None, None] * ramp
    return np.clip(mean[..., None] + rng.normal(0, 60, (count, SIDE, SIDE, 3)), 0, 255).astype(
        np.uint8
    )


def make_table(root: Path) -> TableRef:
    """A table on disk, in two segments, without a generator."""
    rows = [(c, REAL, "train", c in (0, 3)) for c, n in enumerate(COUNTS) for _ in range(n)]
    rows += [(c, lam, "train", False) for c in (0, 3) for lam in (0, 50) for _ in range(5)]
    rows += [(c, lam, "probe", False) for c in (0, 3) for lam in (0, 50) for _ in range(3)]
    rows += [(c, REAL, "val", c in (0, 3)) for c in range(4) for _ in range(5)]
    columns = list(zip(*rows, strict=True))
    pixels = make_pixels(len(rows), np.array(columns[0]))
    known = {
        **dict(zip(("label", "lam_pct", "role", "hard"), columns, strict=True)),
        "domain": ["here"] * len(rows),
    }
    ids = [f"{role}-{label}-{i % 4}" for i, (label, _, role, _) in enumerate(rows)]
    table = pa.table({**known, "sample_id": ids})
    table = table.select(ROWS.names).cast(ROWS)
    store, half = Store.at(root), len(rows) // 2
    segments = tuple(
        write_segment(
            store,
            table.slice(at, length),
            enumerate(map(_image, pixels[at : at + length])),
            SIDE,
            "decoded",
        )
        for at, length in ((0, half), (half, len(rows) - half))
    )
    return TableRef(store=store, name=INDEX, side=SIDE, mode="decoded", segments=segments).write({})


def _image(pixels: np.ndarray) -> Mapping[str, Any]:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def in_memory(root: Path) -> ImageTable:
    """The same table, opened."""
    return open_table(make_table(root))


def make_job(
    strategy: str = "adaptive", *, curriculum: Mapping[str, object] | None = None, **train: object
) -> TrainJob:
    """A ResNet with group normalisation; `train` are further values."""
    small = {
        "width": 4,
        "norm": "group",
        "epochs": 4,
        "batch": 8,
        "eval_every": 1,
        "image_size": SIDE,
        "threads": 1,
    }
    stages = {"strategy": strategy, "epochs": 100, "rule": "strict", **(curriculum or {})}
    return TrainJob(
        seed=1,
        train=TrainConfig.model_validate(small | train),
        curriculum=CurriculumConfig.model_validate(stages),
        names=("zero", "one", "two", "three"),
        groups={0: "few", 1: "many", 2: "many", 3: "few"},
        counts=COUNTS,
        levels=LEVELS,
    )


Moment = tuple[int, int | str, int]
"""When a worker dies: epoch, number of the batch in it or `saved`, rank.

At `saved` the checkpoint is written but not reported.
"""


def mortal_worker(
    moments: tuple[Moment, ...],
    folder: str,
    pause: float = 0.0,
    gates: Mapping[int, str] | None = None,
) -> Callable[[dict[str, Any]], None]:
    """A Ray Train worker that kills its process, once at each moment.

    `folder` remembers which, and on which nodes it was.

    `gates` name, for an epoch, the file without which it does not go on once it has asked what to
    train on.
    """

    # a function inside a function: Ray sends it by value, and no worker has to import this module
    def worker(config: dict[str, Any]) -> None:
        import ray

        from discl_ray.train import trainer
        from discl_ray.train.batches import Batches

        rank, seen = ray.train.get_context().get_world_rank(), [0, 0]
        real_share, real_save = Batches.share, trainer.save_checkpoint
        with open(f"{folder}/node-{rank}-{ray.get_runtime_context().get_node_id()}", "w"):
            pass

        def die_at(epoch: int, where: int | str) -> None:
            marker = f"{folder}/died-{epoch}-{where}-{rank}"
            if (epoch, where, rank) in moments and not os.path.exists(marker):
                with open(marker, "w"):
                    pass
                os.kill(os.getpid(), signal.SIGKILL)

        def share(self: Batches, number: int) -> Any:
            epoch = self.part.epoch
            seen[:] = [epoch, seen[1] + 1 if seen[0] == epoch else 0]
            die_at(epoch, seen[1])
            while gates and epoch in gates and not os.path.exists(gates[epoch]):
                time.sleep(0.05)
            time.sleep(pause)
            return real_share(self, number)

        def save(target: Any, state: Any) -> None:
            real_save(target, state)
            die_at(state.epoch, "saved")

        Batches.share, trainer.save_checkpoint = share, save
        try:
            trainer.train_worker(config)
        finally:
            Batches.share, trainer.save_checkpoint = real_share, real_save

    return worker
