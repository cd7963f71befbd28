"""FLYP: fine-tuning CLIP as it was pretrained, by its own contrastive loss on images and captions made from class names.

The loss is `open_clip.ClipLoss` as published (Goyal et al., CVPR 2023): each image's own caption is its only positive, also where
another caption of the batch says the same. Over several workers features are gathered with their gradients, so the loss is that
of the whole batch. There is no other head than the text tower: classes are read from it at any time, at the logit scale of then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from discl_ray.embedded import SCORER, STUDENT
from discl_ray.errors import ModelError
from discl_ray.models.clip import LOCAL, REFUSED, check_clip, load
from discl_ray.train.augment.augment import CROP
from discl_ray.train.augment.crop import RESIZES, draw_boxes, resized_crops
from discl_ray.train.learners.learner import Batch, Predictor, TrainJob, World

MAX_LOG_SCALE = math.log(100)
"""Bound of the logarithm of the logit scale while training, CLIP's own."""

EMBEDDED = {"embedded": STUDENT, "embedded-scorer": SCORER}
"""Models that come with the package, by the name the configuration uses."""

SAID = -1
"""Column of the random numbers that draws an image's caption."""

CHUNK = 256
"""Images of one forward pass without gradients."""


@dataclass(frozen=True)
class Clip:
    """A CLIP to be trained, with what its images and texts have to go through."""

    model: open_clip.CLIP
    tokenizer: Callable[[Sequence[str]], Tensor]
    preprocess: dict[str, Any]
    """open_clip's own: `size`, `interpolation`, `mean`, `std`."""

    @property
    def side(self) -> list[int]:
        """Height and width of the model's input."""
        size = self.preprocess["size"]
        return [size, size] if isinstance(size, int) else list(size)

    def pixels(self, images: NDArray[np.uint8]) -> Tensor:
        """RGB (N, H, W, 3) as the model's input, float32 (N, 3, S, S): the shorter side is made to fit, the centre is taken."""
        batch = _channels_first(images)
        if list(batch.shape[2:]) != self.side:
            how = InterpolationMode(self.preprocess["interpolation"])
            batch = F.center_crop(F.resize(batch, [min(self.side)], how, antialias=True), self.side)
        return self._normalised(batch)

    def crops(
        self,
        images: NDArray[np.uint8],
        uniform: NDArray[np.float64],
        least: float,
        device: torch.device,
    ) -> Tensor:
        """RGB (N, H, W, 3) as input to train on, float32 (N, 3, S, S): RandomResizedCrop(least, 1), as FLYP's and open_clip's.

        `uniform`, shape (N, 4), draws each image's box; the resize is that of the model's own preprocessing.
        """
        batch = _channels_first(images).to(device, non_blocking=True)
        boxes = draw_boxes(uniform, least, batch.shape[2], batch.shape[3])
        height, width = self.side
        return self._normalised(
            resized_crops(batch, boxes, (height, width), self.preprocess["interpolation"])
        )

    def _normalised(self, batch: Tensor) -> Tensor:
        return F.normalize(batch.float() / 255, self.preprocess["mean"], self.preprocess["std"])


def _channels_first(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def student_folder(model: str) -> Path:
    """Where the CLIP to be trained lies; raises ModelError if it is not an open_clip folder."""
    folder = EMBEDDED.get(model) or Path(model)
    if (
        not (folder / "open_clip_config.json").is_file()
        or not (folder / "open_clip_model.safetensors").is_file()
    ):
        raise ModelError(
            f"train.clip = '{model}': {folder} lacks open_clip_config.json or open_clip_model.safetensors"
        )
    return folder


def check_student(model: str) -> None:
    """Raises ModelError unless the CLIP to be trained is there and its weights are its own; loads nothing."""
    check_clip(f"{LOCAL}{student_folder(model)}", None, f"train.clip = '{model}'")


def load_clip(model: str = "embedded") -> Clip:
    """A folder's CLIP; raises ModelError if there is none or its weights do not fit."""
    folder = student_folder(model)
    try:
        loaded, _, tokenizer = load(f"{LOCAL}{folder}", None, "cpu")
    except REFUSED as error:
        raise ModelError(f"train.clip = '{model}': {error}") from error
    clip = Clip(
        cast(open_clip.CLIP, loaded), tokenizer, dict(cast(Any, loaded.visual).preprocess_cfg)
    )
    if (how := clip.preprocess["interpolation"]) not in RESIZES:
        raise ModelError(
            f"train.clip = '{model}': its open_clip_config.json resizes by preprocess_cfg.interpolation = '{how}'; "
            f"allowed: {', '.join(RESIZES)}"
        )
    return clip


@torch.no_grad()
def text_head(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """A unit vector a class from the text tower as it is now, shape (C, D): the mean over templates of unit vectors."""
    clip.model.eval()
    tokens = clip.tokenizer(
        [template.format(name=name) for name in names for template in templates]
    )
    each = clip.model.encode_text(tokens.to(clip.model.logit_scale.device), normalize=True)
    return nn.functional.normalize(
        each.float().view(len(names), len(templates), -1).mean(1), dim=-1
    )


@torch.no_grad()
def predict(clip: Clip, head: Tensor, images: NDArray[np.uint8], *, batch: int = CHUNK) -> Tensor:
    """Class probabilities at the current logit scale, shape (N, C), in eval mode, on the CPU."""
    clip.model.eval()
    parts = [torch.zeros(0, len(head), device=head.device)]
    for i in range(0, len(images), batch):
        x = clip.pixels(images[i : i + batch]).to(head.device, non_blocking=True)
        features = clip.model.encode_image(x, normalize=True).float()
        parts.append((clip.model.logit_scale.exp().float() * features @ head.T).softmax(1))
    return torch.cat(parts).cpu()


class Flyp:
    """See `Learner`."""

    whole_batches = True

    def __init__(self, job: TrainJob, device: torch.device) -> None:
        self.job, self.device = job, device
        clip = load_clip(job.train.clip)
        self.clip = Clip(clip.model.to(device), clip.tokenizer, clip.preprocess)
        self.model: nn.Module = self.clip.model
        self._forward: Any = torch.compile(self.model) if job.train.compile else self.model
        captions = [
            caption.format(name=name) for name in job.names for caption in job.train.captions
        ]
        self._tokens = self.clip.tokenizer(captions).view(
            len(job.names), len(job.train.captions), -1
        )

    def backward(self, batch: Batch, world: World) -> Tensor:
        """See `Learner`; every worker has the loss of the whole batch, of which its own features carry its share of the gradient."""
        said = (batch.parameters[:, SAID] * len(self.job.train.captions)).astype(np.int64)
        tokens = self._tokens[torch.from_numpy(batch.labels), torch.from_numpy(said)].to(
            self.device, non_blocking=True
        )
        x = self._pixels(batch)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.job.train.precision == "bf16"
        ):
            image, text, scale = self._forward(x, tokens)[:3]
        loss_of = open_clip.ClipLoss(gather_with_grad=True, rank=world.rank, world_size=world.size)
        loss = cast(Tensor, loss_of(image.float(), text.float(), scale))
        (loss / world.size).backward()
        return loss.detach() * len(batch.labels)

    def _pixels(self, batch: Batch) -> Tensor:
        least = self.job.train.augment.crop
        if least == 1:
            return self.clip.pixels(batch.images).to(self.device, non_blocking=True)
        return self.clip.crops(
            batch.images, batch.parameters[:, CROP : CROP + 4], least, self.device
        )

    def after_step(self) -> None:
        """See `Learner`: the logit scale stays within CLIP's bounds."""
        with torch.no_grad():
            self.clip.model.logit_scale.clamp_(0, MAX_LOG_SCALE)

    def predictor(self) -> Predictor:
        """See `Learner`; the head is built once for the pass."""
        head = text_head(self.clip, self.job.names, self.job.train.captions)
        return lambda images: predict(self.clip, head, images)
