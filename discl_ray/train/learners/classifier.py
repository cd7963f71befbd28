"""A ResNet from scratch: augmentation, mixing, one of the losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from discl_ray.train.augment.augment import augment, to_tensor
from discl_ray.train.augment.mixup import blend
from discl_ray.train.learners.learner import Batch, Predictor, TrainJob, World
from discl_ray.train.learners.losses import LOSSES
from discl_ray.train.learners.resnet import resnet

CHUNK = 256
"""Images of one forward pass without gradients."""

LEAST_CHANNELS = 16
"""Channels that go last on a CPU. With fewer, oneDNN's gradient of a shortcut's weights (1x1, stride 2) writes past its buffer, under
AVX2 below 8 and under AVX-512 below 16 (its issue 6035): wrong in silence, or a crash."""


class Classifier:
    """See `Learner`."""

    whole_batches = False

    def __init__(self, job: TrainJob, device: torch.device) -> None:
        self.job, self.device, train = job, device, job.train
        classes = len(job.counts)
        self.model: nn.Module = resnet(
            train.model,
            num_classes=classes,
            width=train.width,
            seed=job.seed,
            norm=train.norm,
            stem=train.stem,
        ).to(device)
        # channels last is 1.4 times as fast on a CPU, and tensor cores need it
        narrow = device.type == "cpu" and train.width < LEAST_CHANNELS
        self._format = torch.contiguous_format if narrow else torch.channels_last
        self.model = self.model.to(memory_format=self._format)
        self._forward: Any = torch.compile(self.model) if train.compile else self.model

    def _logits(self, x: Tensor) -> Tensor:
        x = x.to(self.device, memory_format=self._format, non_blocking=True)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.job.train.precision == "bf16"
        ):
            return self._forward(x).float()

    def backward(self, batch: Batch, world: World) -> Tensor:
        """See `Learner`; a batch in `accumulate` parts has the same gradient but for rounding and batch normalisation."""
        train, total = self.job.train, torch.zeros((), device=self.device)
        counts = batch.counts.to(self.device)
        for part in np.array_split(
            np.arange(len(batch.labels)), min(train.accumulate, max(1, len(batch.labels)))
        ):
            if not len(part):
                continue
            x, weighted = self._augmented(batch, part), [(1.0, batch.labels[part])]
            if batch.partner is not None and batch.mix is not None:
                x = blend(x, self._augmented(batch.partner, part), batch.mix)
                weighted = [
                    (batch.mix.share, batch.labels[part]),
                    (1 - batch.mix.share, batch.partner.labels[part]),
                ]
            logits, loss = self._logits(x), torch.zeros((), device=self.device)
            for share, labels in weighted:
                target = torch.from_numpy(labels).to(self.device)
                loss = loss + share * LOSSES[train.loss](logits, target, counts, train.tau).sum()
            (loss / batch.size).backward()
            total += loss.detach()
        return total

    def _augmented(self, batch: Batch, part: NDArray[np.int64]) -> Tensor:
        return augment(
            batch.images[part], batch.parameters[part], batch.strength[part], self.job.train.augment
        )

    def after_step(self) -> None:
        """See `Learner`; nothing has to hold."""

    def predictor(self) -> Predictor:
        """See `Learner`."""
        self.model.eval()

        @torch.no_grad()
        def predict(images: NDArray[np.uint8]) -> Tensor:
            chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
            parts = [self._logits(to_tensor(chunk)).softmax(1).cpu() for chunk in chunks]
            return torch.cat([torch.zeros(0, len(self.job.counts)), *parts])

        return predict
