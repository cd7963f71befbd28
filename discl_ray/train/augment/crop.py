"""Random crops of a batch: boxes from the images' random numbers, and crops resized together.

A resize is linear along each axis: box i becomes D_i x_i A_iᵀ, with a matrix for each direction.
The matrices are what torch's own resize makes of an identity.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from discl_ray.core.arrays import Floats, Ints

NARROWEST = np.log(3 / 4)
"""Logarithm of the smallest aspect, width over height."""

WIDEST = np.log(4 / 3)

RESIZES = ("bicubic", "bilinear")
"""Interpolations that torch antialiases."""


class Boxes(NamedTuple):
    """A box of whole pixels in each of n images; arrays (n,)."""

    top: Ints
    left: Ints
    height: Ints
    width: Ints


def draw_boxes(uniform: Floats, least: float, height: int, width: int) -> Boxes:
    """Boxes within height x width from uniform numbers (n, 4): area, aspect, top, left.

    The area is from `least` to 1 of the image's, the aspect from 3/4 to 4/3. torchvision's
    RandomResizedCrop draws area and aspect again where they do not fit; here the aspect is drawn,
    uniformly in its logarithm, among those that do.
    """
    for_area, for_aspect, for_top, for_left = uniform.T
    area = least + (1 - least) * for_area
    # a crop of this area fits if width * sqrt(area * aspect / own) is at most the width, and so on
    own = width / height
    lowest_fitting = np.log(own * area)
    low = np.maximum(NARROWEST, lowest_fitting)
    highest_fitting = np.log(own / area)
    high = np.minimum(WIDEST, highest_fitting)
    spread = high - low
    drawn = low + spread * for_aspect
    fits = low < high
    logarithm = np.where(fits, drawn, np.log(own))
    aspect = np.exp(logarithm)
    w_squared = area * aspect * height * width
    w = _side(w_squared, width)
    h_squared = area / aspect * height * width
    h = _side(h_squared, height)
    top = _start(for_top, h, height)
    left = _start(for_left, w, width)
    return Boxes(top, left, h, w)


def _side(square: Floats, longest: int) -> Ints:
    """Roots of some areas as whole numbers of pixels, from 1 to `longest`."""
    side = np.round(np.sqrt(square))
    fitting = np.clip(side, 1, longest)
    return fitting.astype(np.int64)


def _start(uniform: Floats, side: Ints, within: int) -> Ints:
    """First pixels of some sides, anywhere within a line of `within` pixels."""
    starts = within - side + 1
    first = np.floor(uniform * starts)
    return first.astype(np.int64)


def resized_crops(x: Tensor, boxes: Boxes, size: tuple[int, int], mode: str) -> Tensor:
    """uint8 (n, 3, H, W) -> uint8 (n, 3, *size): each image's box, resized with antialiasing.

    As torchvision's `resized_crop` does it. `mode` is one of RESIZES. Values are rounded after each
    direction, as there and in Pillow.
    """
    height, width = size
    across = _resizes(boxes.left, boxes.width, x.shape[3], width, mode)
    down = _resizes(boxes.top, boxes.height, x.shape[2], height, mode)
    # one matrix for the three channels of an image
    across = across.to(x.device)[:, None]
    down = down.to(x.device)[:, None]
    transposed = across.transpose(2, 3)
    narrowed = _rounded(x.float() @ transposed)
    resized = _rounded(down @ narrowed)
    return resized.to(torch.uint8)


def _rounded(x: Tensor) -> Tensor:
    """Whole values from 0 to 255, in place."""
    return x.round_().clamp_(0, 255)


def _resizes(start: Ints, length: Ints, within: int, to: int, mode: str) -> Tensor:
    """Matrices (n, to, within): pixels `start` to `start` + `length` of a line of `within`."""
    matrices = torch.zeros(len(start), to, within)
    sides = zip(start.tolist(), length.tolist(), strict=True)
    for matrix, (begin, count) in zip(matrices, sides, strict=True):
        end = begin + count
        matrix[:, begin:end] = _resize(count, to, mode)
    return matrices


@lru_cache(maxsize=4096)
def _resize(length: int, to: int, mode: str) -> Tensor:
    """The matrix (to, length) of torch's antialiased resize of a line."""
    line = torch.eye(length)[None, None]
    size = (to, length)
    resized = F.interpolate(line, size, mode=mode, align_corners=False, antialias=True)
    return resized[0, 0]
