"""What the epoch loop asks of whatever learns: a classifier from scratch, or a CLIP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from discl_ray.core.arrays import Floats, Ints, Pixels
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.train.augment.mixup import Mix
from discl_ray.train.config import TrainConfig

Predictor = Callable[[Pixels], Tensor]
"""RGB images (N, S, S, 3) -> class probabilities (N, C), float32 on the CPU, in eval mode."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything one training run is, besides its images."""

    seed: int
    train: TrainConfig
    curriculum: CurriculumConfig
    names: tuple[str, ...]
    """Class names by label."""
    groups: dict[int, str]
    """Label -> many, medium or few."""
    counts: tuple[int, ...]
    """Real training images by label."""
    levels: tuple[int, ...] = (100,)
    """What the curriculum goes through, ascending, 100 last."""


@dataclass(frozen=True)
class World:
    """This worker's place among all."""

    rank: int = 0
    size: int = 1


ALONE = World()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A worker's share of a global batch; arrays have its n images."""

    images: Pixels
    """(n, S, S, 3)."""
    labels: Ints
    parameters: Floats
    """Random numbers of each image's place, (n, PARAMETERS)."""
    strength: Ints
    """CUDA's level of each image's class."""
    partner: Batch | None
    """What each image is mixed with; None without mixing."""
    mix: Mix | None
    counts: Tensor
    """The prior as class counts, (C,)."""
    size: int
    """Images of the global batch."""


class Learner(Protocol):
    """A model with its loss. Gradients are summed over workers by the loop."""

    model: nn.Module
    whole_batches: bool
    """Whether the images that do not fill an epoch's last batch are left out of that epoch."""

    def backward(self, batch: Batch, world: World) -> Tensor:
        """Adds gradients, and returns the sum of this share's losses.

        Summed over all workers, the gradients are those of the batch's mean loss.
        """
        ...

    def after_step(self) -> None:
        """Restores what must hold for the weights after each step."""
        ...

    def predictor(self) -> Predictor:
        """The current model as a predictor, for one pass over some images."""
        ...


def parameter_groups(model: nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """For AdamW: matrices are decayed; gains, biases and CLIP's logit scale are not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
