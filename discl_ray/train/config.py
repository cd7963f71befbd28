"""The classifier and its training."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from discl_ray.core.settings import Settings, execution


class TrainConfig(Settings):
    """One training run. Every row of a table starts from the same CE checkpoint and takes the same number of steps."""

    width: int = Field(default=24, ge=1)
    """Channels of the first stage of ResNet-10; doubled at each of the four stages."""
    loss: Literal["ce", "balanced_softmax"] = "ce"
    start_steps: int = Field(default=400, ge=0)
    """Optimizer steps of the CE run on real images that everything starts from."""
    epochs: int = Field(default=35, ge=1)
    """E: epochs after the start, curriculum included."""
    batch: int = Field(default=32, ge=1)
    """Images per optimizer step over all workers."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam's; falls to zero on a cosine."""
    weight_decay: float = Field(default=1e-4, ge=0)
    shift: int = Field(default=2, ge=0)
    """Augmentation: random shift, in pixels."""
    jitter: float = Field(default=0.1, ge=0)
    """Augmentation: spread of random brightness and contrast."""
    eval_every: int = execution(5, ge=1)
    """Epochs between evaluations on val."""
    workers: int = execution(1, ge=1)
    """Ray Train workers; the batch is divided between them."""
    threads: int = execution(2, ge=1)
    """CPU threads of each worker."""
    use_gpu: bool = execution(False)
    max_failures: int = execution(2, ge=0)
    """How often a run whose worker died is taken up again from its last checkpoint."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch % self.workers:
            raise ValueError(f"batch = {self.batch} cannot be divided between workers = {self.workers}")
        return self
