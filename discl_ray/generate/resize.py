"""A source of any shape at the one size of the batch, and back: pure functions on pixels."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Fit = Literal["pad", "crop", "stretch"]
Pixels = NDArray[np.uint8]


class Box(NamedTuple):
    """Where the source lies in the fitted image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, pixels: Pixels) -> Pixels:
        """That part of an image (H, W, 3)."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def fit_image(pixels: Pixels, size: tuple[int, int], mode: Fit) -> tuple[Pixels, Box]:
    """An RGB image (h, w, 3) at `size` = (H, W), and the box that holds what came from the source.

    `pad` scales it to lie inside and reflects its borders, `crop` scales it to cover and keeps the middle, `stretch` ignores the
    aspect ratio. An image of the right size is returned as it is.
    """
    height, width = size
    whole = Box(0, 0, height, width)
    if pixels.shape[:2] == size:
        return pixels, whole
    image = Image.fromarray(pixels)
    if mode == "crop":
        return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)), whole
    if mode == "stretch":
        return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)), whole
    scale = min(height / image.height, width / image.width)
    inner_h, inner_w = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    inner = np.asarray(image.resize((inner_w, inner_h), Image.Resampling.LANCZOS))
    margins = ((top, height - inner_h - top), (left, width - inner_w - left), (0, 0))
    return np.pad(inner, margins, mode="reflect"), Box(top, left, inner_h, inner_w)
