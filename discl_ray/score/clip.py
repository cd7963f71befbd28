"""Embeds prompts and images as unit vectors; their cosines are the scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from discl_ray.core.images import MAX_PIXELS
from discl_ray.errors import ModelError
from discl_ray.models.clip import REFUSED, load
from discl_ray.score.config import ScorerConfig
from discl_ray.score.model_folder import open_clip_name

Pixels = NDArray[np.uint8]
"""An RGB image (H, W, 3)."""

Floats = NDArray[np.float32]

Shape = tuple[int, ...]

Size = int | Sequence[int]
"""A side of a square, or (height, width)."""

RESIZED_ALIKE = ("bicubic", "bilinear")
"""Interpolations that torchvision computes on tensors as Pillow does on images."""


class ClipScorer:
    """CLIP's two towers with the model's own preprocessing and tokenizer."""

    def __init__(self, config: ScorerConfig, device: torch.device | str = "cpu") -> None:
        """Loads weights; raises ModelError if they are not available or do not fit."""
        name = open_clip_name(config)
        self.config = config
        self.device = device
        try:
            loaded = load(name, config.pretrained, device)
        except REFUSED as error:
            raise self._refusal(error) from error
        # Any: the methods of open_clip's models are not those of nn.Module
        self.model: Any = loaded.model.eval()
        self.transform = loaded.transform
        self.tokenizer = loaded.tokenizer
        self.steps: dict[str, Any] = self.model.visual.preprocess_cfg
        self.side = _batched_side(self.steps)

    def _refusal(self, why: object) -> ModelError:
        """The error that names the configured model and why it cannot be used."""
        model = self.config.model
        pretrained = self.config.pretrained
        return ModelError(f"scorer.model = '{model}', pretrained = {pretrained}: {why}")

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, shape (len(texts), D).

        Raises ModelError if tokenizer and text tower do not belong together.
        """
        try:
            tokens = self.tokenizer(list(texts))
            on_device = tokens.to(self.device)
            embedded = self.model.encode_text(on_device, normalize=True)
        except (IndexError, RuntimeError, ValueError) as error:
            # the tower has no vector for a token or a position
            reason = f"its tokenizer does not fit its text tower ({error})"
            raise self._refusal(reason) from error
        return embedded.cpu().numpy()

    @torch.no_grad()
    def embed_images(self, images: Sequence[Pixels]) -> Floats:
        """Unit vectors, shape (len(images), D), of RGB uint8 (H, W, 3) images of any sizes."""
        size = self.config.batch
        embedded: list[Tensor] = []
        for begin in range(0, len(images), size):
            part = images[begin : begin + size]
            pixels = self.pixels(part)
            vectors = self.model.encode_image(pixels, normalize=True)
            embedded.append(vectors)
        return torch.cat(embedded).cpu().numpy()

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosines by before a softmax over prompts."""
        log_scale = self.model.logit_scale.detach()
        return float(log_scale.exp())

    def pixels(self, images: Sequence[Pixels]) -> Tensor:
        """The model's input on its device: float32 (len(images), 3, S, S). Images of one shape are
        prepared together.

        Against open_clip's own transform, which takes one image at a time: the same bits where
        nothing is resized, otherwise at most 2 pixel levels, by which a cosine of the embedded
        scorer moves by at most 0.006. Only images that shrink and are more than twice as tall as
        wide are further off (15 levels, 0.012): Pillow 13 resizes those by columns first.
        """
        if self.steps["resize_mode"] == "shortest":
            size = self.steps["size"]
            images = [middle_part(image, size) for image in images]
        if self.side is None:
            return self._one_by_one(images)
        side = self.side
        shape = (len(images), 3, side, side)
        out = torch.empty(shape, device=self.device)
        shapes = [image.shape for image in images]
        for places in _alike(shapes, side):
            batch = np.stack([images[i] for i in places])
            out[places] = self._prepared(batch, side)
        return out

    def _one_by_one(self, images: Sequence[Pixels]) -> Tensor:
        """The model's input by open_clip's own transform."""
        tensors: list[Tensor] = []
        for image in images:
            tensor = self.transform(Image.fromarray(image))
            tensors.append(tensor)
        return torch.stack(tensors).to(self.device)

    def _prepared(self, batch: Pixels, side: int) -> Tensor:
        """Images (N, H, W, 3) of one shape as the model's input (N, 3, side, side)."""
        tensor = torch.from_numpy(batch)
        resized = self._resized(tensor, side)
        levels = resized.to(self.device)
        share = levels.float() / 255
        mean = self.steps["mean"]
        std = self.steps["std"]
        return F.normalize(share, mean, std)

    def _resized(self, images: Tensor, side: int) -> Tensor:
        """Images (N, H, W, 3) as (N, 3, side, side), the shorter side resized, the longer cropped.

        On the CPU, where torchvision rounds after each direction as Pillow does; without that,
        hard edges are 27 levels off.
        """
        method = InterpolationMode(self.steps["interpolation"])
        channels_first = images.permute(0, 3, 1, 2)
        resized = F.resize(channels_first, [side], method, antialias=True)
        return F.center_crop(resized, [side, side])


def _scaled(shape: Sequence[int], side: int) -> int:
    """Pixels of an image whose shorter side is made `side`."""
    shorter, longer = sorted(shape[:2])
    return side * side * longer // shorter


def _alike(shapes: Sequence[Shape], side: int) -> Iterator[list[int]]:
    """Indices of images of one shape, with at most MAX_PIXELS together once they are scaled."""
    by_shape: dict[Shape, list[int]] = {}
    for i, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(i)
    for shape, places in by_shape.items():
        pixels = _scaled(shape, side)
        count = max(1, MAX_PIXELS // pixels)
        for begin in range(0, len(places), count):
            yield places[begin : begin + count]


def middle_part(image: Pixels, size: Size) -> Pixels:
    """An image without its ends, if it would have more than MAX_PIXELS when scaled whole.

    The ends are cropped afterwards anyway. Each loses a multiple of twice the shorter side, so that
    the scaled image loses an even number of whole pixels and its middle stays at the same fraction
    of a pixel: the model's input is the same.
    """
    side = max(_sides(size))
    if _scaled(image.shape, side) <= MAX_PIXELS:
        return image
    shorter, longer = sorted(image.shape[:2])
    step = 2 * shorter
    allowed = MAX_PIXELS * shorter // side**2
    excess = longer - allowed
    # each end loses half of the excess, rounded up to whole steps
    steps = math.ceil(excess / (2 * step))
    cut = steps * step
    middle = slice(cut, longer - cut)
    upright = image.shape[0] == longer
    if upright:
        return image[middle]
    return image[:, middle]


def _sides(size: Size) -> set[int]:
    """The different sides of a size, in pixels."""
    if isinstance(size, int):
        return {size}
    return set(size)


def _batched_side(steps: dict[str, Any]) -> int | None:
    """S of the model's S x S input; None if `pixels` cannot do what open_clip's transform does."""
    if steps["resize_mode"] != "shortest":
        return None
    if steps["interpolation"] not in RESIZED_ALIKE:
        return None
    sides = _sides(steps["size"])
    if len(sides) > 1:
        return None
    return sides.pop()


def rank_of(own: int, similarities: Floats) -> int:
    """1 + how many of `similarities` exceed the one at position `own`."""
    better = similarities > similarities[own]
    return 1 + int(better.sum())
