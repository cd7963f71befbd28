"""MixUp and CutMix: each image of a global batch with another's.

They are the same however the batch is divided between workers. The loss is share * L(label) +
(1 - share) * L(partner's label).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from discl_ray.core.arrays import Ints


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How a global batch is mixed."""

    partner: Ints
    """For each place of the batch its partner's: a permutation of the batch's places, (n,)."""
    share: float
    """How much of an image is its own, in [0, 1]; for CutMix by the area of the clipped box."""
    box: tuple[int, int, int, int] | None = None
    """CutMix: the partner's part: top, bottom, left, right in pixels, ends excluded."""


def draw_mix(
    places: NDArray[np.integer],
    *,
    seed: int,
    epoch: int,
    kind: Literal["none", "mixup", "cutmix"],
    alpha: float,
    side: int,
) -> Mix:
    """The mix of one global batch of images of `side` x `side` pixels.

    A function of (seed, epoch, places) alone. The share is drawn from Beta(alpha, alpha), one for
    the batch, as in Zhang et al. 2018 (mixup, section 2) and Yun et al. 2019 (CutMix, Eq. 2: the
    box has sides sqrt(1 - share) and its centre anywhere; it is clipped to the image, and the share
    follows).
    """
    own = np.asarray(places, dtype=np.int64)
    if kind == "none" or not len(own):
        return Mix(partner=own, share=1.0)
    first = int(own[0])
    rng = np.random.default_rng([seed, epoch, 0x313, first])
    shuffled = rng.permutation(len(own))
    partner = own[shuffled]
    share = float(rng.beta(alpha, alpha))
    if kind == "mixup":
        return Mix(partner=partner, share=share)
    root = np.sqrt(1 - share)
    half = int(0.5 * root * side)
    down, across = rng.integers(side, size=2).tolist()
    top, bottom = _clipped(down, half, side)
    left, right = _clipped(across, half, side)
    height = bottom - top
    width = right - left
    area = height * width
    own_share = 1 - area / side**2
    return Mix(partner=partner, share=own_share, box=(top, bottom, left, right))


def _clipped(centre: int, half: int, side: int) -> tuple[int, int]:
    """First pixel and end of a line about a centre, within `side` pixels."""
    first = max(centre - half, 0)
    end = min(centre + half, side)
    return first, end


def blend(x: Tensor, x_partner: Tensor, mix: Mix) -> Tensor:
    """Images (n, C, side, side) with their partners in the same order -> the mixed ones."""
    if mix.share == 1:
        return x
    if mix.box is None:
        rest = 1 - mix.share
        return mix.share * x + rest * x_partner
    top, bottom, left, right = mix.box
    mixed = x.clone()
    part = x_partner[:, :, top:bottom, left:right]
    mixed[:, :, top:bottom, left:right] = part
    return mixed
