"""From a configuration and a spectrum on disk to a training job, and the rows of its history."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from discl_ray.core.metrics import group_of
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.strategies import curriculum_levels
from discl_ray.data.config import AnyDataConfig
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.config import TrainConfig
from discl_ray.train.learners.learner import TrainJob

START = CurriculumConfig(strategy="real_only")
"""The curriculum of the run that every row of a table starts from: real images only. How it learns
is `TrainConfig.start`."""


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
    labels = spectrum.split("train", ["label"])["label"].to_pylist()
    by_label = Counter(labels)
    names = spectrum.classes
    counts = tuple(by_label[label] for label in range(len(names)))
    groups = {
        label: group_of(count, few_below=data.few_below, many_above=data.many_above)
        for label, count in enumerate(counts)
    }
    return TrainJob(
        seed=seed,
        train=train,
        curriculum=curriculum,
        names=names,
        groups=groups,
        counts=counts,
        levels=curriculum_levels(curriculum, spectrum.grid),
    )


def start_epochs(job: TrainJob, images_per_epoch: int) -> int:
    """Epochs of the start run: the fewest that take at least `start_steps` optimizer steps."""
    steps = math.ceil(images_per_epoch / job.train.batch)
    return math.ceil(job.train.start_steps / steps)


def history_rows(history: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The controller's history as rows in order of epochs."""
    return [{"epoch": epoch, **history[str(epoch)]} for epoch in sorted(map(int, history))]


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The values of an epoch's record that are numbers, and not lists of them."""
    return {name: value for name, value in record.items() if isinstance(value, int | float)}
