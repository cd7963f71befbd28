"""From a configuration and a spectrum on disk to a training job: what is hard, which group a class is in, where the run lies."""

from __future__ import annotations

from collections import Counter
from typing import Any

from discl_ray.core.lam import REAL
from discl_ray.core.storage import Store
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.data.config import DataConfig
from discl_ray.evaluate.metrics import group_of
from discl_ray.train.config import TrainConfig
from discl_ray.train.loop import TrainJob

START = {"strategy": "real_only", "loss": "ce"}
"""What every row of a table starts from: plain cross-entropy on the real images."""


def make_job(
    generated: Store, *, seed: int, data: DataConfig, train: TrainConfig, curriculum: CurriculumConfig
) -> tuple[TrainJob, tuple[int, ...]]:
    """The training job on a committed spectrum, and its levels, the real image last."""
    samples = generated.read_table("samples/train.parquet", ["label"])
    counts = Counter(samples["label"].to_pylist())
    plan = generated.read_table("plan.parquet", ["label", "role", "lam_pct"])
    train_rows = [row for row in plan.to_pylist() if row["role"] == "train"]
    job = TrainJob(
        seed=seed,
        train=train,
        curriculum=curriculum,
        hard_labels=frozenset(row["label"] for row in train_rows),
        groups={
            label: group_of(count, few_below=data.few_below, many_above=data.many_above) for label, count in counts.items()
        },
        counts=tuple(counts[label] for label in range(max(counts) + 1)),
    )
    return job, (*sorted({row["lam_pct"] for row in train_rows}), REAL)


def start_epochs(job: TrainJob, images_per_epoch: int) -> int:
    """Epochs of the start run: the fewest that take at least `start_steps` optimizer steps."""
    steps = -(-images_per_epoch // job.train.batch)
    return -(-job.train.start_steps // steps)


def history_rows(history: dict[str, Any]) -> list[dict[str, Any]]:
    """The controller's history as rows in order of epochs."""
    return [{"epoch": int(e), **metrics} for e, metrics in sorted(history.items(), key=lambda item: int(item[0]))]
