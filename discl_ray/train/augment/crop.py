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
    area = least + (1 - least) * uniform[:, 0]
    # a crop of this area fits if width * sqrt(area * aspect / own) is at most the width, and so on
    own = width / height
    low = np.maximum(np.log(3 / 4), np.log(own * area))
    high = np.minimum(np.log(4 / 3), np.log(own / area))
    drawn = low + (high - low) * uniform[:, 1]
    aspect = np.exp(np.where(low < high, drawn, np.log(own)))
    w = np.sqrt(area * aspect * height * width)
    w = np.clip(np.round(w), 1, width)
    h = np.sqrt(area / aspect * height * width)
    h = np.clip(np.round(h), 1, height)
    top = np.floor(uniform[:, 2] * (height - h + 1))
    left = np.floor(uniform[:, 3] * (width - w + 1))
    return Boxes(*(side.astype(np.int64) for side in (top, left, h, w)))


def resized_crops(x: Tensor, boxes: Boxes, size: tuple[int, int], mode: str) -> Tensor:
    """uint8 (n, 3, H, W) -> uint8 (n, 3, *size): each image's box, resized with antialiasing.

    As torchvision's `resized_crop` does it. `mode` is one of RESIZES. Values are rounded after each
    direction, as there and in Pillow.
    """
    height, width = size
    across = _resizes(boxes.left, boxes.width, x.shape[3], width, mode).to(x.device)
    down = _resizes(boxes.top, boxes.height, x.shape[2], height, mode).to(x.device)
    narrowed = _rounded(x.float() @ across[:, None].transpose(2, 3))
    return _rounded(down[:, None] @ narrowed).to(torch.uint8)


def _rounded(x: Tensor) -> Tensor:
    return x.round_().clamp_(0, 255)


def _resizes(start: Ints, length: Ints, within: int, to: int, mode: str) -> Tensor:
    """Matrices (n, to, within): pixels `start` to `start` + `length` of a line of `within`."""
    matrices = torch.zeros(len(start), to, within)
    for matrix, begin, count in zip(matrices, start.tolist(), length.tolist(), strict=True):
        matrix[:, begin : begin + count] = _resize(count, to, mode)
    return matrices


@lru_cache(maxsize=4096)
def _resize(length: int, to: int, mode: str) -> Tensor:
    """The matrix (to, length) of torch's antialiased resize of a line."""
    line = torch.eye(length)[None, None]
    resized = F.interpolate(line, (to, length), mode=mode, align_corners=False, antialias=True)
    return resized[0, 0]
