# pyright: reportCallIssue=false
# (the library's own annotations are wider or narrower than what it takes and returns)
"""Prompts and images become unit vectors, their cosines are the scores."""

from __future__ import annotations

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
        """Loads weights; raises ModelError if there are none to be had or they do not fit."""
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
            return (
                self.model.encode_text(self.tokenizer(list(texts)).to(self.device), normalize=True)
                .cpu()
                .numpy()
            )
        except (
            IndexError,
            RuntimeError,
            ValueError,
        ) as error:  # a token or a position that the tower has no vector for
            raise self._refusal(f"its tokenizer does not fit its text tower ({error})") from error

    @torch.no_grad()
    def embed_images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Unit vectors of RGB uint8 (H, W, 3) images of any sizes, in their order, shape (len(images), D)."""
        size = self.config.batch
        batches = (self.pixels(images[i : i + size]) for i in range(0, len(images), size))
        return (
            torch.cat([self.model.encode_image(batch, normalize=True) for batch in batches])
            .cpu()
            .numpy()
        )

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosines by before a softmax over prompts."""
        return float(cast(Any, self.model).logit_scale.detach().exp())

    def pixels(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """The model's input on its device: float32 (len(images), 3, S, S). Images of one shape are prepared together.

        Against open_clip's own transform, which takes one image at a time: the same bits where nothing is resized, otherwise
        at most 2 pixel levels, by which a cosine of the embedded scorer moves by at most 0.006. Only images that shrink and are
        more than twice as tall as wide are further off (15 levels, 0.012): Pillow 13 resizes those by columns first.
        """
        if self.steps["resize_mode"] == "shortest":
            images = [_middle(image, self.steps["size"]) for image in images]
        if self.side is None:
            return torch.stack([self.transform(Image.fromarray(image)) for image in images]).to(
                self.device
            )  # pyright: ignore
        side, how = [self.side, self.side], InterpolationMode(self.steps["interpolation"])
        out = torch.empty(len(images), 3, *side, device=self.device)
        shapes = [image.shape for image in images]
        for places in _alike(shapes, self.side):
            batch = torch.from_numpy(np.stack([images[i] for i in places])).permute(0, 3, 1, 2)
            # on the CPU, where torchvision rounds after each direction as Pillow does; without that, hard edges are 27 levels off
            resized = F.center_crop(F.resize(batch, side[:1], how, antialias=True), side).to(
                self.device
            )
            out[places] = F.normalize(resized.float() / 255, self.steps["mean"], self.steps["std"])
        return out


def _scaled(shape: Sequence[int], side: int) -> int:
    """Pixels of an image whose shorter side is made `side`."""
    return side * side * max(shape[:2]) // min(shape[:2])


def _alike(shapes: Sequence[tuple[int, ...]], side: int) -> Iterator[list[int]]:
    """Places of images of one shape, so many at a time that they have at most MAX_PIXELS when they are scaled."""
    for shape in set(shapes):
        places = [i for i, other in enumerate(shapes) if other == shape]
        count = max(1, MAX_PIXELS // _scaled(shape, side))
        yield from (places[i : i + count] for i in range(0, len(places), count))


def _middle(image: NDArray[np.uint8], size: int | Sequence[int]) -> NDArray[np.uint8]:
    """An image without the ends that are cut off anyway, where it is so long that scaled whole it had more than MAX_PIXELS.

    Each end loses a multiple of twice the shorter side. So the scaled image loses whole pixels there, an even number of them, and
    its middle lies on the same fractions of a pixel as that of the image scaled whole: the model sees the same.
    """
    side = size if isinstance(size, int) else max(size)
    if _scaled(image.shape, side) <= MAX_PIXELS:
        return image
    shorter, longer = sorted(image.shape[:2])
    step = 2 * shorter
    cut = -(-(longer - MAX_PIXELS * shorter // side**2) // (2 * step)) * step
    middle = slice(cut, longer - cut)
    return image[middle] if image.shape[0] == longer else image[:, middle]


def _batched_side(steps: dict[str, Any]) -> int | None:
    """S of the model's S x S input; None if `pixels` cannot do what open_clip's own transform does."""
    sides = {steps["size"]} if isinstance(steps["size"], int) else set(steps["size"])
    known = steps["resize_mode"] == "shortest" and steps["interpolation"] in ("bicubic", "bilinear")
    return sides.pop() if known and len(sides) == 1 else None


def rank_of(own: int, similarities: NDArray[np.float32]) -> int:
    """1 + how many of `similarities` exceed the one at position `own`."""
    return 1 + int((similarities > similarities[own]).sum())
