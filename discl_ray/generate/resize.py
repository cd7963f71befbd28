"""Resizes sources of any shape to the batch's size, and cuts the result back; pure functions."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Fit = Literal["pad", "crop", "stretch"]
Pixels = NDArray[np.uint8]
Size = tuple[int, int]
"""(height, width)."""

LANCZOS = Image.Resampling.LANCZOS


class Box(NamedTuple):
    """Where the source lies in the fitted image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, pixels: Pixels) -> Pixels:
        """That part of an image (H, W, 3)."""
        bottom = self.top + self.height
        right = self.left + self.width
        rows = slice(self.top, bottom)
        columns = slice(self.left, right)
        return pixels[rows, columns]


def fit_image(pixels: Pixels, size: Size, mode: Fit) -> tuple[Pixels, Box]:
    """An RGB image (h, w, 3) at `size` = (H, W), and the box that holds what came from the source.

    `pad` scales it to lie inside and reflects its borders, `crop` scales it to cover and keeps the
    middle, `stretch` ignores the aspect ratio. An image of the right size is returned as it is.
    """
    whole = Box(0, 0, *size)
    if pixels.shape[:2] == size:
        return pixels, whole
    image = Image.fromarray(pixels)
    if mode == "crop":
        height, width = size
        cropped = ImageOps.fit(image, (width, height), LANCZOS)
        return np.asarray(cropped), whole
    if mode == "stretch":
        return _scaled(image, size), whole
    box = _inside(image, size)
    inner_size = (box.height, box.width)
    inner = _scaled(image, inner_size)
    return _reflected(inner, box, size), box


def _scaled(image: Image.Image, size: Size) -> Pixels:
    """The image at another size, whatever its aspect ratio."""
    height, width = size
    scaled = image.resize((width, height), LANCZOS)
    return np.asarray(scaled)


def _inside(image: Image.Image, size: Size) -> Box:
    """The largest box of the image's aspect ratio, in the middle of `size`."""
    height, width = size
    by_height = height / image.height
    by_width = width / image.width
    scale = min(by_height, by_width)
    scaled_h = round(image.height * scale)
    scaled_w = round(image.width * scale)
    # a strip may be thinner than a pixel when it is scaled
    inner_h = max(1, scaled_h)
    inner_w = max(1, scaled_w)
    top = (height - inner_h) // 2
    left = (width - inner_w) // 2
    return Box(top, left, inner_h, inner_w)


def _reflected(inner: Pixels, box: Box, size: Size) -> Pixels:
    """An image in its box, its borders reflected to fill the rest of `size`."""
    height, width = size
    below = height - box.height - box.top
    right = width - box.width - box.left
    rows = (box.top, below)
    columns = (box.left, right)
    channels = (0, 0)
    margins = (rows, columns, channels)
    # numpy reflects again and again where a margin is wider than the image
    return np.pad(inner, margins, mode="reflect")
