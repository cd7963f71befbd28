"""From a configuration and a spectrum on disk to a training job: what is hard, which group a class is in, where the run lies."""

from __future__ import annotations

from collections import Counter
from typing import Any

from discl_ray.core.metrics import group_of
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.strategies import curriculum_levels
from discl_ray.data.config import AnyDataConfig
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.config import TrainConfig
from discl_ray.train.learners.learner import TrainJob

START = CurriculumConfig(strategy="real_only")
"""What every row of a table starts from sees: the real images (and `TrainConfig.start` says how it learns)."""


def make_job(
    spectrum: Spectrum,
    *,
    seed: int,
    data: AnyDataConfig,
    train: TrainConfig,
    curriculum: CurriculumConfig,
) -> TrainJob:
    """The training job on a committed spectrum.

    Raises ConfigError if the curriculum names a level that was not made.
    """
    counts = Counter(spectrum.split("train", ["label"])["label"].to_pylist())
    names = spectrum.classes
    return TrainJob(
        seed=seed,
        train=train,
        curriculum=curriculum,
        names=names,
        groups={
            label: group_of(counts[label], few_below=data.few_below, many_above=data.many_above)
            for label in range(len(names))
        },
        counts=tuple(counts[label] for label in range(len(names))),
        levels=curriculum_levels(curriculum, spectrum.grid),
    )


def start_epochs(job: TrainJob, images_per_epoch: int) -> int:
    """Epochs of the start run: the fewest that take at least `start_steps` optimizer steps."""
    steps = -(-images_per_epoch // job.train.batch)
    return -(-job.train.start_steps // steps)


def history_rows(history: dict[str, Any]) -> list[dict[str, Any]]:
    """The controller's history as rows in order of epochs."""
    return [
        {"epoch": int(e), **metrics}
        for e, metrics in sorted(history.items(), key=lambda item: int(item[0]))
    ]
