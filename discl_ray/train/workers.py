"""By how many workers a training run is trained, and on what."""

from __future__ import annotations

from discl_ray.cluster.checks import Check
from discl_ray.cluster.demand import Workers, workers
from discl_ray.cluster.inventory import present
from discl_ray.config import Config


def training(config: Config, begun: Workers | None = None) -> Workers:
    """The workers of a training run on the cluster there is; `begun` are those that it was begun with.

    Raises SetupError if what is asked for does not fit.
    """
    return workers(
        config.train.workers, config.train.use_gpu, config.train.batch, present(config.run), begun
    )


def each_alone(config: Config, number: int = 1) -> Config:
    """The configuration of a job that trains many runs at once, each by `number` workers: with the workers and the devices decided.

    Raises SetupError if what is asked for does not fit.
    """
    train = config.train.model_copy(update={"workers": number})
    found = training(config.model_copy(update={"train": train}))
    return config.model_copy(update={"train": train.model_copy(update={"use_gpu": found.gpu})})


def check_training(config: Config) -> str:
    """Whether the workers of a training run have room."""
    return str(training(config))


TRAINING: tuple[tuple[str, Check], ...] = (("training", check_training),)
"""Of a job that trains."""
