"""λ, the image-guidance level, in integers.

People write λ as in the paper, 0 (text-typical) to 1 (the real image); tables and file names hold
the integer percent. In floats `int(50 * (1 - 0.9))` is 4, a step short; here nothing is computed in
floats. This file alone converts between the two.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import TypeAlias

REAL = 100
"""`lam_pct` of the real image."""

Pair: TypeAlias = tuple[int, int]
"""Two levels in percent, the lower first."""


def lam_to_pct(lam: float) -> int:
    """λ in [0, 1] as an integer percent.

    Raises ValueError if λ lies outside [0, 1] or between two percents.
    """
    pct = round(lam * 100)
    distance = abs(lam * 100 - pct)
    # 0.29 * 100 is 28.999999999999996: a float is a whole percent up to rounding.
    if not 0 <= lam <= 1 or distance > 1e-6:
        raise ValueError(f"λ = {lam}: allowed are 0 to 1 in whole hundredths, e.g. 0.3")
    return pct


def pct_to_lam(lam_pct: int) -> float:
    """An integer percent as λ, for printing."""
    return lam_pct / 100


def num_denoising_steps(lam_pct: int, schedule_steps: int) -> int:
    """Steps left when denoising starts at t(λ) = ⌊(1-λ)T⌋ (paper §3.1): T * (100 - lam_pct) // 100.

    λ = 1 leaves none: the real image never enters the generator.
    """
    return schedule_steps * (100 - lam_pct) // 100


def coinciding(levels: Collection[int], schedule_steps: int) -> list[Pair]:
    """Pairs of levels, in percent, with equally many steps of T: their images would be the same.

    Levels without any step are not paired.
    """

    found: list[Pair] = []
    # More λ never takes more steps: equal numbers are neighbours.
    for low, high in pairwise(sorted(levels)):
        steps = num_denoising_steps(low, schedule_steps)
        if steps > 0 and steps == num_denoising_steps(high, schedule_steps):
            found.append((low, high))
    return found


def separating_steps(levels: Collection[int], start: int = 1) -> int:
    """The smallest T from `start` up that separates all levels, in percent.

    Each level has steps then, and no two equally many. T = 100 separates any levels.
    """

    def separates(steps: int) -> bool:
        fewest = num_denoising_steps(max(levels), steps)
        return fewest > 0 and not coinciding(levels, steps)

    last = max(start, 100)
    return next(steps for steps in range(start, last + 1) if separates(steps))


def check_grid(lams: Sequence[float], schedule_steps: int) -> list[str]:
    """What is wrong with a grid of levels to generate, in sentences; empty if nothing is."""
    if not lams:
        return ["is empty: name at least one level in [0, 1), e.g. [0, 0.3]"]
    problems: list[str] = []
    seen: set[int] = set()
    for lam in lams:
        try:
            pct = lam_to_pct(lam)
        except ValueError as error:
            problems.append(str(error))
            continue
        if pct == REAL:
            problems.append(
                "λ = 1 is the real image and is always there: allowed are levels in [0, 1)"
            )
        elif pct in seen:
            problems.append(f"λ = {lam} is given twice")
        elif num_denoising_steps(pct, schedule_steps) == 0:
            problems.append(
                f"λ = {lam} leaves no step of {schedule_steps}: "
                "lower it or raise the number of steps"
            )
        seen.add(pct)
    levels = seen - {REAL}
    if pairs := coinciding(levels, schedule_steps):
        problems.append(_same_images(levels, pairs, schedule_steps))
    return problems


def _pair(low: int, high: int) -> str:
    """Two levels, in percent, as they are written in a configuration."""
    lower = pct_to_lam(low)
    higher = pct_to_lam(high)
    return f"{lower:g} and {higher:g}"


def _same_images(levels: Collection[int], pairs: Sequence[Pair], schedule_steps: int) -> str:
    """Which levels take equally many steps, and a number of steps that separates them."""
    named = [_pair(low, high) for low, high in pairs]
    shown = ", ".join(named)
    least = separating_steps(levels)
    more = separating_steps(levels, schedule_steps)
    upwards = ""
    if more > least:
        upwards = f", and from {schedule_steps} up {more}"
    return (
        f"λ = {shown}: equally many of {schedule_steps} steps, so the images would be the same; "
        f"the smallest number of steps that separates all levels is {least}{upwards}"
    )
