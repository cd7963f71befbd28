"""FLYP: fine-tunes a CLIP as it was pretrained, by its contrastive loss on images and captions.

The captions are made from class names. The loss is `open_clip.ClipLoss` as published (Goyal et al.,
CVPR 2023): each image's own caption is its only positive, even where another caption of the batch
is the same. Over several workers features are gathered with their gradients, so the loss is that of
the whole batch. There is no other head than the text tower: class vectors are computed from it at
any time, at the current logit scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from discl_ray.core.arrays import Floats, Pixels
from discl_ray.data.config import NEUTRAL_CAPTIONS
from discl_ray.embedded import SCORER, STUDENT
from discl_ray.errors import ModelError
from discl_ray.models.clip import LOCAL, REFUSED, check_clip, load
from discl_ray.train.augment.augment import CAPTION, CROP, channels_first
from discl_ray.train.augment.crop import RESIZES, draw_boxes, resized_crops
from discl_ray.train.learners.learner import Batch, Predictor, TrainJob, World

MAX_LOG_SCALE = math.log(100)
"""Upper bound of the logarithm of the logit scale while training, as in CLIP."""

EMBEDDED = {"embedded": STUDENT, "embedded-scorer": SCORER}
"""Models that come with the package, by the name the configuration uses."""

CHUNK = 256
"""Images of one forward pass without gradients."""


@dataclass(frozen=True)
class Clip:
    """A CLIP to be trained, with its tokenizer and preprocessing."""

    model: open_clip.CLIP
    tokenizer: Callable[[Sequence[str]], Tensor]
    preprocess: dict[str, Any]
    """open_clip's own: `size`, `interpolation`, `mean`, `std`."""

    @property
    def interpolation(self) -> str:
        """How the model's images are resized."""
        return self.preprocess["interpolation"]

    @property
    def side(self) -> list[int]:
        """Height and width of the model's input."""
        size = self.preprocess["size"]
        if isinstance(size, int):
            return [size, size]
        return list(size)

    def pixels(self, images: Pixels) -> Tensor:
        """RGB (N, H, W, 3) -> the model's input, float32 (N, 3, S, S).

        The shorter side is resized to S, and the centre is taken.
        """
        batch = channels_first(images)
        side = self.side
        if list(batch.shape[2:]) != side:
            shorter = [min(side)]
            how = InterpolationMode(self.interpolation)
            resized = F.resize(batch, shorter, how, antialias=True)
            batch = F.center_crop(resized, side)
        return self._normalised(batch)

    def crops(self, images: Pixels, uniform: Floats, least: float, device: torch.device) -> Tensor:
        """RGB (N, H, W, 3) -> input to train on, float32 (N, 3, S, S), on the device.

        RandomResizedCrop(least, 1), as FLYP and open_clip train. `uniform`, shape (N, 4), draws
        each image's box; the interpolation is that of the model's own preprocessing.
        """
        batch = channels_first(images).to(device, non_blocking=True)
        height, width = batch.shape[2:]
        boxes = draw_boxes(uniform, least, height, width)
        to_height, to_width = self.side
        crops = resized_crops(batch, boxes, (to_height, to_width), self.interpolation)
        return self._normalised(crops)

    def _normalised(self, batch: Tensor) -> Tensor:
        """By channel, with the mean and the standard deviation of the model's preprocessing."""
        mean = self.preprocess["mean"]
        deviation = self.preprocess["std"]
        shares = batch.float() / 255
        return F.normalize(shares, mean, deviation)


def student_folder(model: str) -> Path:
    """The folder of the CLIP to be trained; raises ModelError if it is not an open_clip folder."""
    folder = EMBEDDED.get(model) or Path(model)
    needed = ("open_clip_config.json", "open_clip_model.safetensors")
    there = [(folder / name).is_file() for name in needed]
    if not all(there):
        lacking = " or ".join(needed)
        raise ModelError(f"train.clip = '{model}': {folder} lacks {lacking}")
    return folder


def check_student(model: str) -> None:
    """Raises ModelError unless the CLIP to be trained exists and its weights fit; loads nothing."""
    folder = student_folder(model)
    setting = f"train.clip = '{model}'"
    check_clip(f"{LOCAL}{folder}", None, setting)


def load_clip(model: str = "embedded") -> Clip:
    """A folder's CLIP; raises ModelError if there is none or its weights do not fit."""
    folder = student_folder(model)
    address = f"{LOCAL}{folder}"
    try:
        loaded, _, tokenizer = load(address, None, "cpu")
    except REFUSED as error:
        raise ModelError(f"train.clip = '{model}': {error}") from error
    visual = cast(Any, loaded.visual)
    preprocess = dict(visual.preprocess_cfg)
    trainable = cast(open_clip.CLIP, loaded)
    clip = Clip(trainable, tokenizer, preprocess)
    if clip.interpolation not in RESIZES:
        allowed = ", ".join(RESIZES)
        raise ModelError(
            f"train.clip = '{model}': its open_clip_config.json resizes by "
            f"preprocess_cfg.interpolation = '{clip.interpolation}'; allowed: {allowed}"
        )
    return clip


@torch.no_grad()
def text_head(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """A unit vector for each class from the text tower as it is now, shape (C, D).

    The mean over templates of unit vectors, normalised.
    """
    clip.model.eval()
    tokens = clip.tokenizer(_captions(names, templates))
    device = clip.model.logit_scale.device
    vectors = clip.model.encode_text(tokens.to(device), normalize=True)
    vectors = vectors.float()
    classes = len(names)
    by_class = vectors.view(classes, len(templates), -1)
    means = by_class.mean(1)
    return nn.functional.normalize(means, dim=-1)


def _captions(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every class in every template, class by class."""
    pairs = product(names, templates)
    return [template.format(name=name) for name, template in pairs]


@torch.no_grad()
def predict(clip: Clip, head: Tensor, images: Pixels, *, batch: int = CHUNK) -> Tensor:
    """Class probabilities at the current logit scale, shape (N, C), in eval mode, on the CPU."""
    clip.model.eval()
    scale = clip.model.logit_scale.exp().float()
    classes = len(head)
    parts = [torch.zeros(0, classes, device=head.device)]
    for begin in range(0, len(images), batch):
        end = begin + batch
        pixels = clip.pixels(images[begin:end])
        x = pixels.to(head.device, non_blocking=True)
        features = clip.model.encode_image(x, normalize=True)
        logits = scale * features.float() @ head.T
        parts.append(logits.softmax(1))
    probabilities = torch.cat(parts)
    return probabilities.cpu()


class Flyp:
    """See `Learner`."""

    whole_batches = True

    def __init__(self, job: TrainJob, device: torch.device) -> None:
        self.job = job
        self.device = device
        train = job.train
        clip = load_clip(train.clip)
        self.clip = replace(clip, model=clip.model.to(device))
        self.model: nn.Module = self.clip.model
        self._forward: Any = self.model
        if train.compile:
            self._forward = torch.compile(self.model)
        self.templates = train.captions or NEUTRAL_CAPTIONS
        captions = _captions(job.names, self.templates)
        tokens = clip.tokenizer(captions)
        classes = len(job.names)
        self._tokens = tokens.view(classes, len(self.templates), -1)

    def backward(self, batch: Batch, world: World) -> Tensor:
        """See `Learner`.

        Every worker has the loss of the whole batch, of which its own features carry its share of
        the gradient.
        """
        tokens = self._tokens_of(batch).to(self.device, non_blocking=True)
        x = self.pixels(batch)
        bf16 = self.job.train.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            outputs = self._forward(x, tokens)
        image, text, scale = outputs[:3]
        loss_of = open_clip.ClipLoss(gather_with_grad=True, rank=world.rank, world_size=world.size)
        loss: Tensor = loss_of(image.float(), text.float(), scale)
        share = loss / world.size
        share.backward()
        return loss.detach() * len(batch.labels)

    def _tokens_of(self, batch: Batch) -> Tensor:
        """A random caption of each image's class, as tokens (n, L)."""
        uniform = batch.parameters[:, CAPTION]
        drawn = uniform * len(self.templates)
        template = torch.from_numpy(drawn.astype(np.int64))
        label = torch.from_numpy(batch.labels)
        return self._tokens[label, template]

    def pixels(self, batch: Batch) -> Tensor:
        """A batch's images as the model's input: random crops, unless `augment.crop` is 1."""
        least = self.job.train.augment.crop
        if least == 1:
            whole = self.clip.pixels(batch.images)
            return whole.to(self.device, non_blocking=True)
        uniform = batch.parameters[:, CROP]
        return self.clip.crops(batch.images, uniform, least, self.device)

    def after_step(self) -> None:
        """See `Learner`: the logit scale stays within CLIP's bounds."""
        with torch.no_grad():
            self.clip.model.logit_scale.clamp_(0, MAX_LOG_SCALE)

    def predictor(self) -> Predictor:
        """See `Learner`; the head is computed once for all images."""
        head = text_head(self.clip, self.job.names, self.templates)
        return lambda images: predict(self.clip, head, images)
