"""Augmentation on the batch, drawn per image from (seed, epoch, place in the epoch): the same for any number of workers.

The order is crop, flip, operations of the kind (all on uint8), normalisation, shift, gain and offset. Every operation treats each
image by itself, so an image comes out the same, bit for bit, alone or in any batch.

The classifier sees images normalised by `to_tensor`: a change of brightness or contrast reaches it only through what it clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from discl_ray.train.augment.config import STEPS, AugmentConfig
from discl_ray.train.augment.crop import draw_boxes

FLIP, APPLY, CROP, SEQUENCE = 4, 5, 6, 10
"""Columns of the parameters: 0-3 shift (down, across), gain, offset; whether to flip; whether CUDA's operations are applied; area,
aspect, top and left of the crop; then the operations."""

DRAWS = 4
"""Numbers for one operation: which one, its magnitude, its direction, its seed."""

PARAMETERS = SEQUENCE + STEPS * DRAWS
"""Random numbers for one image."""


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), each image with zero mean and unit variance over its pixels."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1e-2)


def draw_parameters(count: int, *, seed: int, epoch: int, stream: int = 0) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), shape (count, PARAMETERS): a row for every place of an epoch. Another `stream`, other numbers."""
    # the first four have a generator of their own: they are what they were before there were more
    first = np.random.default_rng([seed, epoch, 0xA6, *([stream] if stream else [])]).random(
        (count, 4)
    )
    rest = np.random.default_rng([seed, epoch, 0xA60, stream]).random((count, PARAMETERS - 4))
    return np.concatenate([first, rest], axis=1)


def augment(
    images: NDArray[np.uint8],
    parameters: NDArray[np.float64],
    strength: NDArray[np.integer],
    config: AugmentConfig,
) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), normalised and augmented.

    `parameters`, shape (N, PARAMETERS), are the images' rows of `draw_parameters`; `strength`, shape (N,), is CUDA's level of each
    image's class and means nothing to the other kinds.
    """
    if config.crop < 1 or config.flip or config.kind != "standard":
        x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).contiguous()
        if config.crop < 1:
            x = _crop(x, parameters[:, CROP : CROP + 4], config.crop)
        if config.flip:
            x = torch.where(
                torch.from_numpy(parameters[:, FLIP] < 0.5).view(-1, 1, 1, 1), x.flip(3), x
            )
        images = KINDS[config.kind](x, parameters, strength, config).permute(0, 2, 3, 1).numpy()
    return _jitter(
        _shift(to_tensor(images), parameters[:, :2], config.shift),
        parameters[:, 2:4],
        config.jitter,
    )


def standard(
    x: Tensor, parameters: NDArray[np.float64], strength: NDArray[np.integer], config: AugmentConfig
) -> Tensor:
    """Nothing more than crop, flip, shift and jitter."""
    return x


def strong(
    x: Tensor, parameters: NDArray[np.float64], strength: NDArray[np.integer], config: AugmentConfig
) -> Tensor:
    """`strong_ops` random operations on colour and texture in sequence, each at a random magnitude."""
    draws = parameters[:, SEQUENCE:].reshape(len(x), STEPS, DRAWS)
    counts = np.full(len(x), config.strong_ops)
    return _sequence(x, COLOUR_OPS, counts, draws, draws[:, :, 1])


def cuda(
    x: Tensor, parameters: NDArray[np.float64], strength: NDArray[np.integer], config: AugmentConfig
) -> Tensor:
    """O(x; s) of CUDA (Ahn et al., ICLR 2023, section 3.1): s random operations in sequence, each at magnitude s / cuda_max.

    Half the images stay as they are (p_aug = 0.5), and all of strength 0. The released code mirrors, too, and stops at a third of
    its operations' magnitudes.
    """
    draws = parameters[:, SEQUENCE:].reshape(len(x), STEPS, DRAWS)
    counts = np.where(parameters[:, APPLY] < 0.5, np.minimum(strength, config.cuda_max), 0)
    return _sequence(
        x, tuple(OPS), counts, draws, np.repeat(counts[:, None] / config.cuda_max, STEPS, axis=1)
    )


KINDS: dict[
    str, Callable[[Tensor, NDArray[np.float64], NDArray[np.integer], AugmentConfig], Tensor]
] = {"standard": standard, "strong": strong, "cuda": cuda}
"""What `kind` adds, uint8 (N, 3, H, W) to the same."""


def _sequence(
    x: Tensor,
    names: tuple[str, ...],
    counts: NDArray[np.integer],
    draws: NDArray[np.float64],
    magnitude: NDArray[np.float64],
) -> Tensor:
    """Image i goes through counts[i] operations; at each step the images with the same operation go through it together."""
    x = x.clone()
    for step in range(int(counts.max(initial=0))):
        chosen = (draws[:, step, 0] * len(names)).astype(np.int64)
        active = counts > step
        for number in np.unique(chosen[active]):
            rows = np.flatnonzero(active & (chosen == number))
            index = torch.from_numpy(rows)
            x[index] = OPS[names[number]](x[index], magnitude[rows, step], draws[rows, step, 2:])
    return x


def _shift(x: Tensor, uniform: NDArray[np.float64], shift: int) -> Tensor:
    """Moves each image by up to `shift` pixels down and across; edges are repeated."""
    n, _, height, width = x.shape
    padded = F.pad(x, (shift,) * 4, mode="replicate")
    offset = (uniform * (2 * shift + 1)).astype(np.int64)
    rows = torch.from_numpy(offset[:, :1] + np.arange(height)).view(n, 1, height, 1)
    columns = torch.from_numpy(offset[:, 1:2] + np.arange(width)).view(n, 1, 1, width)
    channel, image = torch.arange(x.shape[1]).view(1, -1, 1, 1), torch.arange(n).view(-1, 1, 1, 1)
    return padded[image, channel, rows, columns]


def _jitter(x: Tensor, uniform: NDArray[np.float64], jitter: float) -> Tensor:
    """Changes gain and offset of each image by up to `jitter`."""
    gain, bias = (_column((2 * uniform[:, i] - 1) * jitter) for i in (0, 1))
    return x * (1 + gain) + bias


def _crop(x: Tensor, uniform: NDArray[np.float64], least: float) -> Tensor:
    """Random crops, resized to the image's own size."""
    height, width = x.shape[2:]
    top, left, h, w = draw_boxes(uniform, least, height, width)

    def within(size: NDArray[np.int64], to: int) -> NDArray[np.float64]:
        centres = (np.arange(to) + 0.5) * size[:, None] / to - 0.5
        return np.clip(centres, 0, size[:, None] - 1)

    down, across = top[:, None] + within(h, height), left[:, None] + within(w, width)
    return _sample(
        x, np.repeat(down[:, :, None], width, axis=2), np.repeat(across[:, None, :], height, axis=1)
    )


def _sample(x: Tensor, down: NDArray[np.float64], across: NDArray[np.float64]) -> Tensor:
    """Bilinear values of uint8 images at pixel positions, both of shape (n, H, W); edges are repeated."""
    height, width = x.shape[2:]
    scaled = [2 * across / max(width - 1, 1) - 1, 2 * down / max(height - 1, 1) - 1]
    grid = torch.from_numpy(np.stack(scaled, axis=3)).float()
    return _round(
        F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="border", align_corners=True)
    )


def _round(x: Tensor) -> Tensor:
    return x.round_().clamp_(0, 255).to(torch.uint8)


def _column(values: NDArray[np.float64]) -> Tensor:
    """One number for each image, in the shape that multiplies (n, 3, H, W)."""
    return torch.from_numpy(values).float().view(-1, 1, 1, 1)


Op = Callable[[Tensor, NDArray[np.float64], NDArray[np.float64]], Tensor]
"""uint8 (n, 3, H, W), magnitudes in [0, 1] (n,), uniform numbers (n, 2) for direction and seed -> uint8 (n, 3, H, W)."""


def _signed(draw: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(draw[:, 0] < 0.5, -1.0, 1.0)


def _generators(draw: NDArray[np.float64]) -> list[np.random.Generator]:
    return [np.random.default_rng(int(u * 2**53)) for u in draw[:, 1]]


def _blended(other: Callable[[Tensor], Tensor], spread: float) -> Op:
    """The image f * x + (1 - f) * other(x), f up to `spread` below or above 1, as torchvision's adjust functions."""

    def op(x: Tensor, magnitude: NDArray[np.float64], draw: NDArray[np.float64]) -> Tensor:
        factor = _column(1 + _signed(draw) * spread * magnitude)
        return _round(factor * x + (1 - factor) * other(x))

    return op


def _grey(x: Tensor) -> Tensor:
    return (0.2989 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]).floor_()


def _hue(x: Tensor, magnitude: NDArray[np.float64], draw: NDArray[np.float64]) -> Tensor:
    """Turns the hue by up to half the circle."""
    turns = 0.5 * _signed(draw) * magnitude
    return torch.cat(
        [V.adjust_hue_image(x[i : i + 1], float(turn)) for i, turn in enumerate(turns)]
    )


def _tint(x: Tensor, magnitude: NDArray[np.float64], draw: NDArray[np.float64]) -> Tensor:
    """Multiplies each channel by a factor of its own, 0.4 to 1.6."""
    factors = np.stack(
        [
            1 + 0.6 * m * g.uniform(-1, 1, 3)
            for m, g in zip(magnitude, _generators(draw), strict=True)
        ]
    )
    return _round(x * torch.from_numpy(factors).float().view(-1, 3, 1, 1))


def _shade(x: Tensor, magnitude: NDArray[np.float64], draw: NDArray[np.float64]) -> Tensor:
    """Light that falls off across the image in any direction, to 0.4 at one corner and 1.6 at the other."""
    height, width = x.shape[2:]
    angle = 2 * np.pi * draw[:, :1, None]
    down, across = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    ramp = (np.cos(angle) * down + np.sin(angle) * across) / math.sqrt(2)
    return _round(x * torch.from_numpy(1 + 0.6 * magnitude[:, None, None] * ramp).float()[:, None])


def _posterize(x: Tensor, magnitude: NDArray[np.float64], draw: NDArray[np.float64]) -> Tensor:
    """Keeps 8 down to 3 bits of each value."""
    dropped = np.round(5 * magnitude).astype(np.int64)
    return x & torch.from_numpy((0xFF << dropped & 0xFF).astype(np.uint8)).view(-1, 1, 1, 1)


def _solarize(x: Tensor, magnitude: NDArray[np.float64], draw: NDArray[np.float64]) -> Tensor:
    """Inverts the values from a threshold on, 256 down to 64."""
    return torch.where(x >= _column(256 - 192 * magnitude), 255 - x, x)


def _noise(x: Tensor, magnitude: NDArray[np.float64], draw: NDArray[np.float64]) -> Tensor:
    """Gaussian noise by pixel and channel, standard deviation up to 0.2 of the range."""
    noise = np.stack([g.standard_normal(x.shape[1:], dtype=np.float32) for g in _generators(draw)])
    return _round(x + _column(51 * magnitude) * torch.from_numpy(noise))


def _blur(x: Tensor, magnitude: NDArray[np.float64], draw: NDArray[np.float64]) -> Tensor:
    """Gaussian blur, standard deviation up to 0.035 of the height: 1.1 pixels of 32."""
    widest = 0.035 * x.shape[2]
    radius = math.ceil(2.5 * widest)
    steps = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (steps / np.maximum(magnitude * widest, 1e-3)[:, None]) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    y = x.float()
    for axis, pad in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded, size = F.pad(y, pad, mode="replicate"), x.shape[axis]
        y = torch.zeros_like(y)
        for i in range(
            len(steps)
        ):  # a sum of shifted images: a convolution's rounding depends on the batch
            y += _column(kernel[:, i]) * padded.narrow(axis, i, size)
    return _round(y)


def _soft(x: Tensor) -> Tensor:
    """torchvision's and PIL's smoothing of the inner pixels, weights 1 but 5 in the middle, over 13."""
    y = x.float()
    across = y[..., :-2] + y[..., 1:-1] + y[..., 2:]
    inner = (
        across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :] + 4 * y[..., 1:-1, 1:-1]
    ) / 13
    y[..., 1:-1, 1:-1] = inner.round_()
    return y


def _plain(function: Callable[[Tensor], Tensor]) -> Op:
    return lambda x, magnitude, draw: function(x)


def _affine(matrix: Callable[[NDArray[np.float64]], tuple[NDArray[np.float64] | float, ...]]) -> Op:
    """Moves the image about its centre: signed magnitudes (n,) -> the inverse map (dd, da, td, ad, aa, ta).

    The pixel at (down, across), both from the centre, shows what was at (dd * down + da * across + td, ad * down + aa * across + ta);
    td and ta are parts of the side.
    """

    def op(x: Tensor, magnitude: NDArray[np.float64], draw: NDArray[np.float64]) -> Tensor:
        height, width = x.shape[2:]
        y, z = (
            (np.arange(height) - (height - 1) / 2)[:, None],
            (np.arange(width) - (width - 1) / 2)[None, :],
        )
        dd, da, td, ad, aa, ta = (
            np.broadcast_to(v, len(x))[:, None, None] for v in matrix(_signed(draw) * magnitude)
        )
        down, across = dd * y + da * z + td * height, ad * y + aa * z + ta * width
        return _sample(x, down + (height - 1) / 2, across + (width - 1) / 2)

    return op


def _turn(m: NDArray[np.float64]) -> tuple[NDArray[np.float64] | float, ...]:
    angle = np.deg2rad(30) * m
    return np.cos(angle), -np.sin(angle), 0.0, np.sin(angle), np.cos(angle), 0.0


OPS: dict[str, Op] = {
    "brightness": _blended(lambda x: torch.zeros_like(x, dtype=torch.float32), 0.8),
    "contrast": _blended(lambda x: _grey(x).mean((1, 2, 3), keepdim=True), 0.8),
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
    "rotate": _affine(_turn),
    "shear_down": _affine(lambda m: (1.0, 0.3 * m, 0.0, 0.0, 1.0, 0.0)),
    "shear_across": _affine(lambda m: (1.0, 0.0, 0.0, 0.3 * m, 1.0, 0.0)),
    "move_down": _affine(lambda m: (1.0, 0.0, 0.15 * m, 0.0, 1.0, 0.0)),
    "move_across": _affine(lambda m: (1.0, 0.0, 0.0, 0.0, 1.0, 0.15 * m)),
    "zoom": _affine(lambda m: (1 - 0.25 * abs(m), 0.0, 0.0, 0.0, 1 - 0.25 * abs(m), 0.0)),
}
"""Operations by name, none of which makes one digit look like another: no mirroring, rotation up to 30 degrees."""

BINARY_OPS = ("equalize", "autocontrast", "invert")
"""Operations that know no magnitude."""

COLOUR_OPS = tuple(OPS)[: tuple(OPS).index("rotate")]
"""Operations that move nothing: those of `strong`."""
