# pyright: reportCallIssue=false
# (the library's own annotations are wider or narrower than what it takes and returns)
"""Embeds prompts and images as unit vectors; their cosines are the scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

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


class ClipScorer:
    """CLIP's two towers with the model's own preprocessing and tokenizer."""

    def __init__(self, config: ScorerConfig, device: torch.device | str = "cpu") -> None:
        """Loads weights; raises ModelError if they are not available or do not fit."""
        name = open_clip_name(config)
        self.config, self.device = config, device
        try:
            model, self.transform, self.tokenizer = load(name, config.pretrained, device)
        except REFUSED as error:
            raise self._refusal(error) from error
        self.model = cast(Any, model.eval())
        self.steps: dict[str, Any] = cast(Any, model.visual).preprocess_cfg
        self.side = _batched_side(self.steps)

    def _refusal(self, why: object) -> ModelError:
        return ModelError(
            f"scorer.model = '{self.config.model}', pretrained = {self.config.pretrained}: {why}"
        )

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (len(texts), D).

        Raises ModelError if tokenizer and text tower do not belong together.
        """
        try:
            tokens = self.tokenizer(list(texts)).to(self.device)
            embedded = self.model.encode_text(tokens, normalize=True)
        except (IndexError, RuntimeError, ValueError) as error:
            # the tower has no vector for a token or a position
            raise self._refusal(f"its tokenizer does not fit its text tower ({error})") from error
        return embedded.cpu().numpy()

    @torch.no_grad()
    def embed_images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Unit vectors, shape (len(images), D), of RGB uint8 (H, W, 3) images of any sizes."""
        size = self.config.batch
        embedded: list[Tensor] = []
        for begin in range(0, len(images), size):
            batch = self.pixels(images[begin : begin + size])
            embedded.append(self.model.encode_image(batch, normalize=True))
        return torch.cat(embedded).cpu().numpy()

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosines by before a softmax over prompts."""
        return float(self.model.logit_scale.detach().exp())

    def pixels(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """The model's input on its device: float32 (len(images), 3, S, S). Images of one shape are
        prepared together.

        Against open_clip's own transform, which takes one image at a time: the same bits where
        nothing is resized, otherwise at most 2 pixel levels, by which a cosine of the embedded
        scorer moves by at most 0.006. Only images that shrink and are more than twice as tall as
        wide are further off (15 levels, 0.012): Pillow 13 resizes those by columns first.
        """
        if self.steps["resize_mode"] == "shortest":
            images = [_middle(image, self.steps["size"]) for image in images]
        if self.side is None:
            tensors = [self.transform(Image.fromarray(image)) for image in images]
            return torch.stack(tensors).to(self.device)
        out = torch.empty(len(images), 3, self.side, self.side, device=self.device)
        shapes = [image.shape for image in images]
        for places in _alike(shapes, self.side):
            batch = np.stack([images[i] for i in places])
            resized = self._resized(torch.from_numpy(batch), self.side).to(self.device)
            share = resized.float() / 255
            out[places] = F.normalize(share, self.steps["mean"], self.steps["std"])
        return out

    def _resized(self, images: Tensor, side: int) -> Tensor:
        """Images (N, H, W, 3) as (N, 3, side, side), the shorter side resized, the longer cropped.

        On the CPU, where torchvision rounds after each direction as Pillow does; without that,
        hard edges are 27 levels off.
        """
        method = InterpolationMode(self.steps["interpolation"])
        resized = F.resize(images.permute(0, 3, 1, 2), [side], method, antialias=True)
        return F.center_crop(resized, [side, side])


def _scaled(shape: Sequence[int], side: int) -> int:
    """Pixels of an image whose shorter side is made `side`."""
    return side * side * max(shape[:2]) // min(shape[:2])


def _alike(shapes: Sequence[tuple[int, ...]], side: int) -> Iterator[list[int]]:
    """Indices of images of one shape, with at most MAX_PIXELS together once they are scaled."""
    for shape in set(shapes):
        places = [i for i, other in enumerate(shapes) if other == shape]
        count = max(1, MAX_PIXELS // _scaled(shape, side))
        for begin in range(0, len(places), count):
            yield places[begin : begin + count]


def _middle(image: NDArray[np.uint8], size: int | Sequence[int]) -> NDArray[np.uint8]:
    """An image without its ends, if it would have more than MAX_PIXELS when scaled whole.

    The ends are cropped afterwards anyway. Each loses a multiple of twice the shorter side, so that
    the scaled image loses an even number of whole pixels and its middle stays at the same fraction
    of a pixel: the model's input is the same.
    """
    side = size if isinstance(size, int) else max(size)
    if _scaled(image.shape, side) <= MAX_PIXELS:
        return image
    shorter, longer = sorted(image.shape[:2])
    step = 2 * shorter
    excess = longer - MAX_PIXELS * shorter // side**2
    cut = math.ceil(excess / (2 * step)) * step
    middle = slice(cut, longer - cut)
    return image[middle] if image.shape[0] == longer else image[:, middle]


def _batched_side(steps: dict[str, Any]) -> int | None:
    """S of the model's S x S input; None if `pixels` cannot do what open_clip's transform does."""
    size = steps["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if steps["resize_mode"] != "shortest" or len(sides) != 1:
        return None
    return sides.pop() if steps["interpolation"] in ("bicubic", "bilinear") else None


def rank_of(own: int, similarities: NDArray[np.float32]) -> int:
    """1 + how many of `similarities` exceed the one at position `own`."""
    return 1 + int((similarities > similarities[own]).sum())
