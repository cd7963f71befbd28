"""Resizes sources of any shape to the batch's size, and cuts the result back; pure functions."""

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
        rows = slice(self.top, self.top + self.height)
        columns = slice(self.left, self.left + self.width)
        return pixels[rows, columns]


def fit_image(pixels: Pixels, size: tuple[int, int], mode: Fit) -> tuple[Pixels, Box]:
    """An RGB image (h, w, 3) at `size` = (H, W), and the box that holds what came from the source.

    `pad` scales it to lie inside and reflects its borders, `crop` scales it to cover and keeps the
    middle, `stretch` ignores the aspect ratio. An image of the right size is returned as it is.
    """
    height, width = size
    whole = Box(0, 0, height, width)
    if pixels.shape[:2] == size:
        return pixels, whole
    image = Image.fromarray(pixels)
    if mode == "crop":
        cropped = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
        return np.asarray(cropped), whole
    if mode == "stretch":
        stretched = image.resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(stretched), whole
    return _padded(image, height, width)


def _padded(image: Image.Image, height: int, width: int) -> tuple[Pixels, Box]:
    """The image scaled to lie inside, its borders reflected to fill the rest."""
    scale = min(height / image.height, width / image.width)
    inner_h = max(1, round(image.height * scale))
    inner_w = max(1, round(image.width * scale))
    top = (height - inner_h) // 2
    left = (width - inner_w) // 2
    box = Box(top, left, inner_h, inner_w)
    inner = np.asarray(image.resize((inner_w, inner_h), Image.Resampling.LANCZOS))
    rows = (top, height - inner_h - top)
    columns = (left, width - inner_w - left)
    return np.pad(inner, (rows, columns, (0, 0)), mode="reflect"), box
