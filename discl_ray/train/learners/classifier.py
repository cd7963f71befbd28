"""A ResNet from scratch: augmentation, MixUp or CutMix, one of the losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from discl_ray.core.arrays import Ints, Pixels
from discl_ray.train.augment.augment import augment, to_tensor
from discl_ray.train.augment.mixup import blend
from discl_ray.train.learners.learner import Batch, Predictor, TrainJob, World
from discl_ray.train.learners.losses import LOSSES
from discl_ray.train.learners.resnet import resnet

CHUNK = 256
"""Images of one forward pass without gradients."""

LEAST_CHANNELS = 16
"""Fewest channels for channels-last on a CPU. With fewer, oneDNN's gradient of a shortcut's weights
(1x1, stride 2) writes past its buffer, under AVX2 below 8 and under AVX-512 below 16 (its issue
6035): silently wrong, or a crash."""


class Classifier:
    """See `Learner`."""

    whole_batches = False

    def __init__(self, job: TrainJob, device: torch.device) -> None:
        self.job = job
        self.device = device
        train = job.train
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
        self._forward: Any = self.model
        if train.compile:
            self._forward = torch.compile(self.model)

    def logits(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) on any device -> float32 (N, C) on the model's."""
        x = x.to(self.device, memory_format=self._format, non_blocking=True)
        bf16 = self.job.train.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            logits = self._forward(x)
        return logits.float()

    def backward(self, batch: Batch, world: World) -> Tensor:
        """See `Learner`.

        A batch in `accumulate` parts has the same gradient but for rounding and batch
        normalisation.
        """
        total = torch.zeros((), device=self.device)
        count = len(batch.labels)
        parts = min(self.job.train.accumulate, max(1, count))
        places = np.arange(count)
        for part in np.array_split(places, parts):
            if not len(part):
                continue
            loss = self._loss(batch, part)
            mean = loss / batch.size
            mean.backward()
            total += loss.detach()
        return total

    def _loss(self, batch: Batch, part: Ints) -> Tensor:
        """Summed loss of some of a batch's images."""
        x = self._augmented(batch, part)
        labels = batch.labels[part]
        if batch.partner is None or batch.mix is None:
            return self._summed(self.logits(x), labels, batch.counts)
        x = blend(x, self._augmented(batch.partner, part), batch.mix)
        logits = self.logits(x)
        own = self._summed(logits, labels, batch.counts)
        labels_of_partners = batch.partner.labels[part]
        partners = self._summed(logits, labels_of_partners, batch.counts)
        share = batch.mix.share
        rest = 1 - share
        return share * own + rest * partners

    def _summed(self, logits: Tensor, labels: Ints, counts: Tensor) -> Tensor:
        """The sum over images of the loss that the configuration names."""
        train = self.job.train
        loss_of = LOSSES[train.loss]
        target = torch.from_numpy(labels).to(self.device)
        prior = counts.to(self.device)
        return loss_of(logits, target, prior, train.tau).sum()

    def _augmented(self, batch: Batch, part: Ints) -> Tensor:
        """Some of a batch's images as they are trained on, (n, 3, H, W)."""
        config = self.job.train.augment
        images = batch.images[part]
        parameters = batch.parameters[part]
        strength = batch.strength[part]
        return augment(images, parameters, strength, config)

    def after_step(self) -> None:
        """See `Learner`; nothing to do."""

    def predictor(self) -> Predictor:
        """See `Learner`."""
        self.model.eval()

        @torch.no_grad()
        def predict(images: Pixels) -> Tensor:
            parts = [torch.zeros(0, len(self.job.counts))]
            for begin in range(0, len(images), CHUNK):
                end = begin + CHUNK
                x = to_tensor(images[begin:end])
                logits = self.logits(x)
                probabilities = logits.softmax(1)
                parts.append(probabilities.cpu())
            return torch.cat(parts)

        return predict
