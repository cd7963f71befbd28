"""Operations on colour, texture and place, each on uint8 images with a magnitude of their own.

None makes one class of characters look like another: no mirroring, rotation up to 30 degrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from discl_ray.core.arrays import Floats

Op = Callable[[Tensor, Floats, Floats], Tensor]
"""uint8 (n, 3, H, W), magnitudes in [0, 1] (n,), uniform numbers (n, 2) for direction and seed ->
uint8 (n, 3, H, W)."""


def per_image(values: Floats) -> Tensor:
    """One number for each image, in the shape that multiplies (n, 3, H, W)."""
    return _float32(values).view(-1, 1, 1, 1)


def _float32(values: Floats) -> Tensor:
    """The same values as a tensor, in the precision of the images."""
    return torch.from_numpy(values).float()


def sample(x: Tensor, down: Floats, across: Floats) -> Tensor:
    """Bilinear values of uint8 images at pixel positions; edges are repeated.

    Both positions have the shape (n, H, W), or are broadcast to it.
    """
    height, width = x.shape[2:]
    columns = _relative(across, width)
    rows = _relative(down, height)
    positions = np.broadcast_arrays(columns, rows)
    grid = _float32(np.stack(positions, axis=3))
    values = F.grid_sample(
        x.float(), grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return _to_uint8(values)


def _relative(pixels: Floats, length: int) -> Floats:
    """grid_sample's own positions: -1 and 1 are the centres of the outermost pixels."""
    last = max(length - 1, 1)
    return 2 * pixels / last - 1


def _to_uint8(x: Tensor) -> Tensor:
    """Rounds in place to the nearest of the 256 values."""
    return x.round_().clamp_(0, 255).to(torch.uint8)


def _signed(draw: Floats) -> Floats:
    """Direction of each image's change, -1 or 1."""
    negative = draw[:, 0] < 0.5
    return np.where(negative, -1.0, 1.0)


def _generators(draw: Floats) -> list[np.random.Generator]:
    """A generator for each image, seeded with all 53 bits of its random number."""
    seeds = draw[:, 1] * 2**53
    return [np.random.default_rng(int(seed)) for seed in seeds]


# -- colour and texture


def _blended(other: Callable[[Tensor], Tensor], spread: float) -> Op:
    """The image f * x + (1 - f) * other(x), as torchvision's adjust functions.

    f is up to `spread` below or above 1.
    """

    def op(x: Tensor, magnitude: Floats, draw: Floats) -> Tensor:
        change = _signed(draw) * spread * magnitude
        factor = per_image(1 + change)
        rest = 1 - factor
        return _to_uint8(factor * x + rest * other(x))

    return op


def _black(x: Tensor) -> Tensor:
    """What brightness blends with."""
    return torch.zeros_like(x, dtype=torch.float32)


def _grey(x: Tensor) -> Tensor:
    """What saturation blends with: whole grey values (n, 1, H, W), as torchvision weighs them."""
    red, green, blue = x.split(1, dim=1)
    grey = 0.2989 * red + 0.587 * green + 0.114 * blue
    return grey.floor_()


def _mean_grey(x: Tensor) -> Tensor:
    """What contrast blends with: each image's mean, (n, 1, 1, 1)."""
    grey = _grey(x)
    return grey.mean((1, 2, 3), keepdim=True)


def _hue(x: Tensor, magnitude: Floats, draw: Floats) -> Tensor:
    """Turns the hue by up to half the circle."""
    turns = 0.5 * _signed(draw) * magnitude
    images = x.split(1)
    turned = map(V.adjust_hue_image, images, turns.tolist())
    return torch.cat(list(turned))


def _tint(x: Tensor, magnitude: Floats, draw: Floats) -> Tensor:
    """Multiplies each channel by a factor of its own, 0.4 to 1.6."""
    generators = _generators(draw)
    drawn = [generator.uniform(-1, 1, 3) for generator in generators]
    spread = 0.6 * magnitude[:, None]
    factors = 1 + spread * np.stack(drawn)
    by_channel = _float32(factors)
    by_channel = by_channel.view(-1, 3, 1, 1)
    return _to_uint8(x * by_channel)


def _shade(x: Tensor, magnitude: Floats, draw: Floats) -> Tensor:
    """Light that falls off across the image in any direction, from 1.6 to 0.4 at the corners."""
    height, width = x.shape[2:]
    turn = draw[:, :1, None]
    angle = 2 * np.pi * turn
    cos = np.cos(angle)
    sin = np.sin(angle)
    across = np.linspace(-1, 1, width)
    down = np.linspace(-1, 1, height)[:, None]
    towards = cos * down + sin * across
    # a corner is the square root of 2 away from the centre
    ramp = towards / math.sqrt(2)
    spread = 0.6 * magnitude[:, None, None]
    light = _float32(1 + spread * ramp)
    on_all_channels = light[:, None]
    return _to_uint8(x * on_all_channels)


def _posterize(x: Tensor, magnitude: Floats, draw: Floats) -> Tensor:
    """Keeps 8 down to 3 bits of each value."""
    bits = np.round(5 * magnitude)
    dropped = bits.astype(np.int64)
    kept = 0xFF << dropped & 0xFF
    mask = torch.from_numpy(kept.astype(np.uint8))
    return x & mask.view(-1, 1, 1, 1)


def _solarize(x: Tensor, magnitude: Floats, draw: Floats) -> Tensor:
    """Inverts the values from a threshold on, 256 down to 64."""
    threshold = per_image(256 - 192 * magnitude)
    return torch.where(x >= threshold, 255 - x, x)


def _noise(x: Tensor, magnitude: Floats, draw: Floats) -> Tensor:
    """Gaussian noise by pixel and channel, standard deviation up to 0.2 of the range."""
    shape = x.shape[1:]
    generators = _generators(draw)
    drawn = [generator.standard_normal(shape, np.float32) for generator in generators]
    noise = torch.from_numpy(np.stack(drawn))
    deviation = per_image(51 * magnitude)
    return _to_uint8(x + deviation * noise)


def _blur(x: Tensor, magnitude: Floats, draw: Floats) -> Tensor:
    """Gaussian blur, standard deviation up to 0.035 of the height: 1.1 pixels of 32."""
    widest = 0.035 * x.shape[2]
    radius = math.ceil(2.5 * widest)
    steps = np.arange(-radius, radius + 1)
    deviation = np.maximum(magnitude * widest, 1e-3)  # a kernel divides by it
    deviations = deviation[:, None]
    distance = steps / deviations
    kernel = np.exp(-0.5 * distance**2)
    kernel /= kernel.sum(1, keepdims=True)
    above_and_below = (0, 0, radius, radius)
    y = _weighted_sum(x.float(), kernel, axis=2, pad=above_and_below)
    left_and_right = (radius, radius, 0, 0)
    y = _weighted_sum(y, kernel, axis=3, pad=left_and_right)
    return _to_uint8(y)


def _weighted_sum(x: Tensor, kernel: Floats, *, axis: int, pad: tuple[int, ...]) -> Tensor:
    """Convolution along an axis with a kernel for each image, shape (n, taps).

    As a sum of shifted images: the rounding of torch's convolution depends on the batch.
    """
    padded = F.pad(x, pad, mode="replicate")
    total = torch.zeros_like(x)
    length = x.shape[axis]
    for number, weights in enumerate(kernel.T):
        shifted = padded.narrow(axis, number, length)
        total += per_image(weights) * shifted
    return total


def _soft(x: Tensor) -> Tensor:
    """torchvision's and PIL's smoothing of the inner pixels.

    Weights are 1, but 5 in the middle, over 13.
    """
    y = x.float()
    middle = y[..., 1:-1, 1:-1]
    across = _sums_of_three(y, axis=3)
    total = _sums_of_three(across, axis=2)
    # the total has the middle once
    weighted = total + 4 * middle
    smooth = (weighted / 13).round_()
    middle.copy_(smooth)
    return y


def _sums_of_three(x: Tensor, *, axis: int) -> Tensor:
    """Each inner value with its two neighbours along an axis, which is two shorter then."""
    inner = x.shape[axis] - 2
    before = x.narrow(axis, 0, inner)
    own = x.narrow(axis, 1, inner)
    after = x.narrow(axis, 2, inner)
    return before + own + after


def _plain(function: Callable[[Tensor], Tensor]) -> Op:
    """An operation without a magnitude."""
    return lambda x, magnitude, draw: function(x)


# -- place


Number = Floats | float
"""One for all images, or one for each, (n,)."""


class _Affine(NamedTuple):
    """Where a pixel is taken from, from its own place (down, across), both from the centre.

    That is (down_by_down * down + down_by_across * across + move_down, and the same across). Each
    is one number or one for each image; moves are parts of the side.
    """

    down_by_down: Number = 1.0
    down_by_across: Number = 0.0
    move_down: Number = 0.0
    across_by_down: Number = 0.0
    across_by_across: Number = 1.0
    move_across: Number = 0.0

    def for_each(self, count: int) -> _Affine:
        """All numbers for each of `count` images, in the shape that multiplies (n, H, W)."""
        by_image = (np.broadcast_to(value, count) for value in self)
        return _Affine(*(value[:, None, None] for value in by_image))


def _affine(map_of: Callable[[Floats], _Affine]) -> Op:
    """Moves the image about its centre, by the inverse map of signed magnitudes (n,)."""

    def op(x: Tensor, magnitude: Floats, draw: Floats) -> Tensor:
        height, width = x.shape[2:]
        middle_down = (height - 1) / 2
        middle_across = (width - 1) / 2
        down = (np.arange(height) - middle_down)[:, None]
        across = (np.arange(width) - middle_across)[None, :]
        signed = _signed(draw) * magnitude
        own_map = map_of(signed)
        m = own_map.for_each(len(x))
        from_down = m.down_by_down * down + m.down_by_across * across
        from_down = from_down + m.move_down * height
        from_across = m.across_by_down * down + m.across_by_across * across
        from_across = from_across + m.move_across * width
        return sample(x, from_down + middle_down, from_across + middle_across)

    return op


def _rotated(m: Floats) -> _Affine:
    """By up to 30 degrees."""
    angle = np.deg2rad(30) * m
    cos = np.cos(angle)
    sin = np.sin(angle)
    return _Affine(down_by_down=cos, down_by_across=-sin, across_by_down=sin, across_by_across=cos)


def _sheared_down(m: Floats) -> _Affine:
    """By up to 0.3 pixels down for each pixel across."""
    return _Affine(down_by_across=0.3 * m)


def _sheared_across(m: Floats) -> _Affine:
    """By up to 0.3 pixels across for each pixel down."""
    return _Affine(across_by_down=0.3 * m)


def _moved_down(m: Floats) -> _Affine:
    """By up to 0.15 of the height."""
    return _Affine(move_down=0.15 * m)


def _moved_across(m: Floats) -> _Affine:
    """By up to 0.15 of the width."""
    return _Affine(move_across=0.15 * m)


def _zoomed(m: Floats) -> _Affine:
    """Enlarged by up to a third, whatever the sign."""
    change = 0.25 * abs(m)
    scale = 1 - change
    return _Affine(down_by_down=scale, across_by_across=scale)


OPS: dict[str, Op] = {
    "brightness": _blended(_black, 0.8),
    "contrast": _blended(_mean_grey, 0.8),
    "saturation": _blended(_grey, 0.9),
    "hue": _hue,
    "tint": _tint,
    "shade": _shade,
    "posterize": _posterize,
    "solarize": _solarize,
    "equalize": _plain(V.equalize_image),
    "autocontrast": _plain(V.autocontrast_image),
    "invert": _plain(V.invert_image),
    "sharpness": _blended(_soft, 0.9),
    "blur": _blur,
    "noise": _noise,
    "rotate": _affine(_rotated),
    "shear_down": _affine(_sheared_down),
    "shear_across": _affine(_sheared_across),
    "move_down": _affine(_moved_down),
    "move_across": _affine(_moved_across),
    "zoom": _affine(_zoomed),
}
"""Operations by name. Their order decides which one a random number draws."""

_NAMES = tuple(OPS)

COLOUR_OPS = _NAMES[: _NAMES.index("rotate")]
"""Operations that move nothing: those of `strong`."""
