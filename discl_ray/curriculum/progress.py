"""Progress (Algorithm 2): by how much a round of real training raised the probability of the true class on the probes at a level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Progress(NamedTuple):
    """What a round did at one level."""

    mean: float
    """Mean over probes of the true class's probability, after minus before."""
    se: float
    """Its standard error, by source: probes made from one image are not independent. 0 for a single source."""


def progress_of(
    before: NDArray[np.floating], after: NDArray[np.floating], level: NDArray[np.int64], source: NDArray[np.str_]
) -> dict[int, Progress]:
    """Progress by level, ascending, from each probe's probability of its class, shape (N,).

    SE² = G/(G-1) Σ_g (Σ_{i∈g} (d_i - d̄))² / n², the cluster-robust variance of a mean over the G sources of a level.
    """
    difference = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    found = {}
    for lam_pct in np.unique(level).tolist():
        mine = level == lam_pct
        d, (_, group) = difference[mine], np.unique(source[mine], return_inverse=True)
        sums = np.bincount(group, weights=d - d.mean())
        clusters = len(sums)
        variance = clusters / (clusters - 1) * (sums**2).sum() / len(d) ** 2 if clusters > 1 else 0.0
        found[lam_pct] = Progress(float(d.mean()), math.sqrt(variance))
    return found


def lead_in_se(first: Progress, second: Progress) -> float:
    """By how many standard errors of their difference one leads the other; infinite if neither has any."""
    se, lead = math.hypot(first.se, second.se), first.mean - second.mean
    return lead / se if se > 0 else math.inf if lead > 0 else 0.0


def most_progressed(progress: Mapping[int, Progress], *, previous: int | None = None) -> tuple[int, float | None]:
    """(level, lead over the second in standard errors): the argmax; of equals the lowest level.

    Given `previous` (margin rule), that level is kept while the best leads it by less than one standard error.
    """
    order = sorted(progress, key=lambda level: (-progress[level].mean, level))
    best = order[0]
    lead = lead_in_se(progress[best], progress[order[1]]) if len(order) > 1 else None
    if (
        previous is not None
        and previous in progress
        and previous != best
        and lead_in_se(progress[best], progress[previous]) < 1
    ):
        return previous, lead
    return best, lead


def to_metrics(progress: Mapping[int, Progress]) -> dict[str, float]:
    """As flat numbers for an epoch's record: progress_30, progress_se_30."""
    return {
        name: value
        for level, p in sorted(progress.items())
        for name, value in ((f"progress_{level}", p.mean), (f"progress_se_{level}", p.se))
    }


def from_metrics(metrics: Mapping[str, Any]) -> dict[int, Progress]:
    """Back from an epoch's record; empty if it has no progress."""
    levels = sorted(int(name.removeprefix("progress_se_")) for name in metrics if name.startswith("progress_se_"))
    return {level: Progress(metrics[f"progress_{level}"], metrics[f"progress_se_{level}"]) for level in levels}
