"""Progress (Algorithm 2): by how much a round of real training raised the probability of the true class on the probes at a level.

Two levels are compared by the sources both have, because a source that a round made easier became so at every level:

    δ_g = d̄_ag - d̄_bg        d̄_lg: the mean difference of source g's probes at level l
    lead = δ̄ / SE             SE² = Σ_g (δ_g - δ̄)² / (G (G - 1)), over the G common sources

With fewer than two of them there are no pairs, and SE² = SE_a² + SE_b², as for levels that know nothing of each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DIGITS = 4
"""Significant digits that a record keeps of a source's difference: far below its noise, and a third of the file."""

BySource = tuple[float | None, ...]
"""A number for each of all sources, ascending by name; None where a level has no probe of it."""


class Progress(NamedTuple):
    """What a round did at one level."""

    mean: float
    """Mean over probes of the true class's probability, after minus before."""
    se: float
    """Its standard error, by source: probes made from one image are not independent. 0 for a single source."""
    by_source: BySource = ()
    """d̄_lg to DIGITS; empty in records from before it was kept."""


def progress_of(
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    level: NDArray[np.int64],
    source: NDArray[np.str_],
) -> dict[int, Progress]:
    """Progress by level, ascending, from each probe's probability of its class, shape (N,).

    SE² = G/(G-1) Σ_g (Σ_{i∈g} (d_i - d̄))² / n², the cluster-robust variance of a mean over the G sources of a level.
    """
    difference = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    names, number = np.unique(source, return_inverse=True)
    found = {}
    for lam_pct in np.unique(level).tolist():
        mine = level == lam_pct
        d, group = difference[mine], number[mine]
        probes = np.bincount(group, minlength=len(names))
        there = probes > 0
        sums = np.bincount(group, weights=d - d.mean(), minlength=len(names))[there]
        clusters = len(sums)
        variance = (
            clusters / (clusters - 1) * (sums**2).sum() / len(d) ** 2 if clusters > 1 else 0.0
        )
        means = np.full(len(names), np.nan)
        means[there] = np.bincount(group, weights=d, minlength=len(names))[there] / probes[there]
        found[lam_pct] = Progress(float(d.mean()), math.sqrt(variance), _rounded(means))
    return found


def _rounded(means: NDArray[np.float64]) -> BySource:
    return tuple(
        None if math.isnan(value) else float(f"{value:.{DIGITS}g}") for value in means.tolist()
    )


def lead_in_se(first: Progress, second: Progress) -> float:
    """By how many standard errors of their difference one leads the other; infinite if there is no error to speak of."""
    differences = _paired(first, second)
    if len(differences) > 1:
        lead = float(differences.mean())
        se = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    else:
        lead = first.mean - second.mean
        se = math.hypot(first.se, second.se)
    if se > 0:
        return lead / se
    return math.inf if lead > 0 else 0.0


def _paired(first: Progress, second: Progress) -> NDArray[np.float64]:
    """δ_g of the common sources."""
    if len(first.by_source) != len(second.by_source):
        return np.empty(0)
    pairs = zip(first.by_source, second.by_source, strict=True)
    return np.array([a - b for a, b in pairs if a is not None and b is not None])


def most_progressed(
    progress: Mapping[int, Progress], *, previous: int | None = None
) -> tuple[int, float | None]:
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


# -- records

MEAN, SE, SOURCES = "progress_", "progress_se_", "progress_sources_"


def to_metrics(progress: Mapping[int, Progress]) -> dict[str, Any]:
    """As an epoch's record: progress_30, progress_se_30, and the list progress_sources_30."""
    record: dict[str, Any] = {}
    for level, found in sorted(progress.items()):
        record[f"{MEAN}{level}"], record[f"{SE}{level}"] = found.mean, found.se
        if found.by_source:
            record[f"{SOURCES}{level}"] = list(found.by_source)
    return record


def from_metrics(metrics: Mapping[str, Any]) -> dict[int, Progress]:
    """Back from an epoch's record; empty if it has no progress."""
    levels = sorted(int(name.removeprefix(SE)) for name in metrics if name.startswith(SE))
    return {
        level: Progress(
            metrics[f"{MEAN}{level}"],
            metrics[f"{SE}{level}"],
            tuple(metrics.get(f"{SOURCES}{level}", ())),
        )
        for level in levels
    }


def unpaired(history: Sequence[Mapping[str, Any]]) -> int:
    """How many records have progress without its differences by source, and so leads whose error is not paired."""
    return sum(
        not all(found.by_source for found in from_metrics(record).values()) for record in history
    )
