"""Strategies: which images does each epoch train on? Pure functions of the epoch, one signature, one dict.

With L ascending levels (λ = 1, the real image, is the last) and E_CL curriculum epochs; after them a curriculum trains on the
real images alone. S_λ are kept synthetic images, D_h hard and D_nh non-hard real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from discl_ray.core.lam import REAL


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one epoch trains on besides D_nh and D_h."""

    levels: tuple[int, ...]
    """Levels drawn from, evenly; (100,) is D_h itself, repeated; () is D_all as it is, nothing synthetic and nothing repeated."""

    @property
    def synthetic(self) -> tuple[int, ...]:
        """The levels that are not the real image."""
        return tuple(level for level in self.levels if level != REAL)


REAL_STAGE = Choice(levels=(REAL,))
"""λ = 1: D_nh ∪ D_h, with D_h repeated to the size of a synthetic stage."""

AS_IS = Choice(levels=())
"""The data set as it is."""


def diverse_to_specific(epoch: int, levels: Sequence[int], curriculum_epochs: int) -> Choice:
    """Algorithm 1: ascending levels, equal time each; at epoch e = 1...E_CL level min(⌊(e-1) L / E_CL⌋, L-1)."""
    if epoch > curriculum_epochs:
        return REAL_STAGE
    return Choice(levels=(levels[min((epoch - 1) * len(levels) // curriculum_epochs, len(levels) - 1)],))


def all_level(epoch: int, levels: Sequence[int], curriculum_epochs: int) -> Choice:
    """No curriculum: every synthetic level at once, the same number of images as one level would give."""
    return REAL_STAGE if epoch > curriculum_epochs else Choice(levels=tuple(levels))


def real_only(epoch: int, levels: Sequence[int], curriculum_epochs: int) -> Choice:
    """The baseline: every real image alike, as many of them per epoch as the other strategies see images."""
    return AS_IS


STRATEGIES: dict[str, Callable[[int, Sequence[int], int], Choice]] = {
    "diverse_to_specific": diverse_to_specific,
    "all_level": all_level,
    "real_only": real_only,
}
"""Strategies by name: (epoch from 1, levels with 100 last, E_CL) -> Choice."""
