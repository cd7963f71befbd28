"""Augmentation on the batch, drawn per image from (seed, epoch, place in the epoch).

So it is the same for any number of workers. The order is crop, flip, operations of the kind (all on
uint8), normalisation, shift, gain and offset. Every operation treats each image by itself, so an
image comes out the same, bit for bit, alone or in any batch.

The classifier sees images normalised by `to_tensor`: a change of brightness or contrast reaches it
only through the values it clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from discl_ray.core.arrays import Floats, Ints, Pixels
from discl_ray.train.augment.config import STEPS, AugmentConfig
from discl_ray.train.augment.crop import draw_boxes
from discl_ray.train.augment.operations import COLOUR_OPS, OPS, per_image, sample

SHIFT = slice(0, 2)
"""Columns of an image's random numbers: down and across."""

JITTER = slice(2, 4)
"""Gain and offset."""

FLIP = 4
"""Whether to flip."""

APPLY = 5
"""Whether CUDA's operations are applied."""

CROP = slice(6, 10)
"""Area, aspect, top and left of the crop."""

SEQUENCE = 10
"""The first of the operations' columns."""

DRAWS = 4
"""Numbers for one operation: which one, its magnitude, its direction, its seed."""

PARAMETERS = SEQUENCE + STEPS * DRAWS
"""Random numbers for one image."""

DRAWN_AT_ONCE = 1 << 14
"""Images whose random numbers are drawn in one go."""

CAPTION = PARAMETERS - 1
"""Which caption a CLIP's image has. It is the column of the last operation's seed, too: a CLIP's
images go through no operations."""


def to_tensor(images: Pixels) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), zero mean and unit variance over each image."""
    values = channels_first(images).float()
    x = values / 255
    mean = x.mean((1, 2, 3), keepdim=True)
    deviation = x.std((1, 2, 3), keepdim=True)
    centred = x - mean
    return centred / (deviation + 1e-2)  # an image of one colour has no deviation


def channels_first(images: Pixels) -> Tensor:
    """A copy of uint8 (N, H, W, 3) as (N, 3, H, W)."""
    copy = np.array(images, order="C")  # arrays out of Ray are read-only
    x = torch.from_numpy(copy)
    return x.permute(0, 3, 1, 2)


def draw_parameters(count: int, *, seed: int, epoch: int, stream: int = 0) -> Floats:
    """Uniform numbers in [0, 1), shape (count, PARAMETERS): a row for every place of an epoch.

    Another `stream` gives other numbers.
    """
    # the first four have a generator of their own, so that they are what they were in versions
    # that drew no more
    key = [seed, epoch, 0xA6]
    if stream:
        key.append(stream)
    first = np.random.default_rng(key)
    rest = np.random.default_rng([seed, epoch, 0xA60, stream])
    drawn = np.empty((count, PARAMETERS))
    # in parts, so that the numbers of an epoch are in memory once
    for begin in range(0, count, DRAWN_AT_ONCE):
        part = drawn[begin : begin + DRAWN_AT_ONCE]
        part[:, :4] = first.random((len(part), 4))
        part[:, 4:] = rest.random((len(part), PARAMETERS - 4))
    return drawn


def augment(images: Pixels, parameters: Floats, strength: Ints, config: AugmentConfig) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), normalised and augmented.

    `parameters`, shape (N, PARAMETERS), are the images' rows of `draw_parameters`; `strength`,
    shape (N,), is CUDA's level of each image's class and has no effect on the other kinds.
    """
    changed = _changed(images, parameters, strength, config)
    x = to_tensor(changed)
    shifted = _shift(x, parameters[:, SHIFT], config.shift)
    return _jitter(shifted, parameters[:, JITTER], config.jitter)


def _changed(images: Pixels, parameters: Floats, strength: Ints, config: AugmentConfig) -> Pixels:
    """The images after crop, flip and the kind's operations."""
    cropped = config.crop < 1
    if not cropped and not config.flip and config.kind == "standard":
        return images
    x = channels_first(images).contiguous()
    if cropped:
        for_crop = parameters[:, CROP]
        x = _crop(x, for_crop, config.crop)
    if config.flip:
        x = _flip(x, parameters[:, FLIP])
    operations = KINDS[config.kind]
    x = operations(x, parameters, strength, config)
    channels_last = x.permute(0, 2, 3, 1)
    return channels_last.numpy()


def standard(x: Tensor, parameters: Floats, strength: Ints, config: AugmentConfig) -> Tensor:
    """Nothing more than crop, flip, shift and jitter."""
    return x


def strong(x: Tensor, parameters: Floats, strength: Ints, config: AugmentConfig) -> Tensor:
    """`strong_ops` random operations on colour and texture, each at a random magnitude."""
    draws = _operation_draws(parameters)
    counts = np.full(len(x), config.strong_ops)
    magnitude = draws[:, :, 1]
    return _sequence(x, COLOUR_OPS, counts, draws, magnitude)


def cuda(x: Tensor, parameters: Floats, strength: Ints, config: AugmentConfig) -> Tensor:
    """O(x; s) of CUDA (Ahn et al., ICLR 2023, section 3.1).

    s random operations in sequence, each at magnitude s / cuda_max. Half the images stay as they
    are (p_aug = 0.5), and all of strength 0. The released code also mirrors images, and stops at a
    third of its operations' magnitudes.
    """
    applied = parameters[:, APPLY] < 0.5
    level = np.minimum(strength, config.cuda_max)
    counts = np.where(applied, level, 0)
    share = counts[:, None] / config.cuda_max
    magnitude = np.repeat(share, STEPS, axis=1)
    draws = _operation_draws(parameters)
    return _sequence(x, tuple(OPS), counts, draws, magnitude)


Kind = Callable[[Tensor, Floats, Ints, AugmentConfig], Tensor]

KINDS: dict[str, Kind] = {"standard": standard, "strong": strong, "cuda": cuda}
"""What `kind` adds, uint8 (N, 3, H, W) to the same."""


def _operation_draws(parameters: Floats) -> Floats:
    """Random numbers of the operations, shape (N, STEPS, DRAWS)."""
    own = parameters[:, SEQUENCE:]
    return own.reshape(len(parameters), STEPS, DRAWS)


def _sequence(
    x: Tensor, names: Sequence[str], counts: Ints, draws: Floats, magnitude: Floats
) -> Tensor:
    """Image i goes through counts[i] operations.

    At each step the images with the same operation go through it together.
    """
    x = x.clone()
    longest = int(counts.max(initial=0))
    for step in range(longest):
        drawn = draws[:, step]
        place = drawn[:, 0] * len(names)
        chosen = place.astype(np.int64)
        active = counts > step
        for number in np.unique(chosen[active]):
            together = active & (chosen == number)
            rows = np.flatnonzero(together)
            index = torch.from_numpy(rows)
            name = names[int(number)]
            operation = OPS[name]
            at_magnitude = magnitude[rows, step]
            direction_and_seed = drawn[rows, 2:]
            x[index] = operation(x[index], at_magnitude, direction_and_seed)
    return x


def _shift(x: Tensor, uniform: Floats, shift: int) -> Tensor:
    """Moves each image by up to `shift` pixels down and across; edges are repeated."""
    n, channels, height, width = x.shape
    every_side = (shift, shift, shift, shift)
    padded = F.pad(x, every_side, mode="replicate")
    offsets = 2 * shift + 1
    offset = (uniform * offsets).astype(np.int64)
    rows = np.arange(height)
    columns = np.arange(width)
    down = offset[:, :1] + rows
    across = offset[:, 1:] + columns
    # four indices that broadcast to the shape of x
    image = torch.arange(n).view(n, 1, 1, 1)
    channel = torch.arange(channels).view(channels, 1, 1)
    row = torch.from_numpy(down).view(n, 1, height, 1)
    column = torch.from_numpy(across).view(n, 1, 1, width)
    return padded[image, channel, row, column]


def _jitter(x: Tensor, uniform: Floats, jitter: float) -> Tensor:
    """Changes gain and offset of each image by up to `jitter`."""
    signed = 2 * uniform - 1
    change = signed * jitter
    gain = per_image(change[:, 0])
    offset = per_image(change[:, 1])
    scaled = x * (1 + gain)
    return scaled + offset


def _flip(x: Tensor, uniform: Floats) -> Tensor:
    """Mirrors the images whose number is below one half, left to right."""
    flipped = torch.from_numpy(uniform < 0.5)
    by_image = flipped.view(-1, 1, 1, 1)
    return torch.where(by_image, x.flip(3), x)


def _crop(x: Tensor, uniform: Floats, least: float) -> Tensor:
    """Random crops, resized to the image's own size."""
    height, width = x.shape[2:]
    down, across = crop_positions(uniform, least, height, width)
    return sample(x, down[:, :, None], across[:, None, :])


def crop_positions(uniform: Floats, least: float, height: int, width: int) -> tuple[Floats, Floats]:
    """Where a crop's pixels are taken from: rows (n, height) and columns (n, width), in pixels."""
    boxes = draw_boxes(uniform, least, height, width)
    down = _centres(boxes.top, boxes.height, height)
    across = _centres(boxes.left, boxes.width, width)
    return down, across


def _centres(start: Ints, size: Ints, to: int) -> Floats:
    """Centres of `to` pixels over each of some boxes' sides, kept inside; shape (n, to)."""
    sizes = size[:, None]
    middles = np.arange(to) + 0.5
    centres = middles * sizes / to - 0.5
    last = sizes - 1
    inside = np.clip(centres, 0, last)
    return start[:, None] + inside
