"""Number and devices of the workers of a training run."""

from __future__ import annotations

from discl_ray.cluster.checks import Check
from discl_ray.cluster.demand import Workers, workers
from discl_ray.cluster.inventory import present
from discl_ray.config import Config, RunConfig
from discl_ray.train.config import TrainConfig


def training(train: TrainConfig, run: RunConfig, begun: Workers | None = None) -> Workers:
    """The workers of a training run on this cluster; `begun` are those that it was begun with.

    Raises SetupError if what is asked for does not fit.
    """
    cluster = present(run)
    return workers(train.workers, train.use_gpu, train.batch, cluster, begun)


def each_alone(config: Config, number: int = 1) -> Config:
    """The configuration of a job that trains many runs at once, each with `number` workers.

    Workers and devices are decided in it. Raises SetupError if what is asked for does not fit.
    """
    train = config.train.model_copy(update={"workers": number})
    found = training(train, config.run)
    decided = train.model_copy(update={"use_gpu": found.gpu})
    return config.model_copy(update={"train": decided})


def check_training(config: Config) -> str:
    """The workers of a training run, in words; raises SetupError if they do not fit."""
    return str(training(config.train, config.run))


TRAINING: tuple[tuple[str, Check], ...] = (("training", check_training),)
"""Checks of a job that trains."""
