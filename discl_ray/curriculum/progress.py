"""Progress (Algorithm 2): the probability of the true class on probes, after minus before.

It is measured over a round of training on real images, by level. Two levels are compared on the
sources both have, because a source that a round made easier became so at every level:

    δ_g = d̄_ag - d̄_bg        d̄_lg: the mean difference of source g's probes at level l
    lead = δ̄ / SE             SE² = Σ_g (δ_g - δ̄)² / (G (G - 1)), over the G common sources

With fewer than two common sources nothing can be paired, and SE² = SE_a² + SE_b², as for
independent levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SIGNIFICANT_DIGITS = 4
"""Of a source's difference in a record: far below its noise, and a third of the full text's size.
"""

Floats = NDArray[np.float64]

BySource = tuple[float | None, ...]
"""A number for every source, ascending by name; None where a level has no probe of it."""


class Progress(NamedTuple):
    """What a round of training changed at one level."""

    mean: float
    """Mean over probes of the true class's probability, after minus before."""
    se: float
    """Its standard error, clustered by source: probes made from one image are not independent. 0
    for a single source."""
    by_source: BySource = ()
    """d̄_lg, rounded to SIGNIFICANT_DIGITS; empty in records made before it was kept."""


ByLevel = Mapping[int, Progress]
"""Progress by λ in percent."""


def progress_of(
    before: Floats, after: Floats, level: NDArray[np.int64], source: NDArray[np.str_]
) -> dict[int, Progress]:
    """Progress by level in percent, ascending.

    `before` and `after` are the probabilities of each probe's class, `level` its λ in percent and
    `source` its real image, all of shape (N,).
    """
    difference = after - before
    names, number = np.unique(source, return_inverse=True)
    found: dict[int, Progress] = {}
    for lam_pct in np.unique(level).tolist():
        chosen = level == lam_pct
        sources = number[chosen]
        found[lam_pct] = _progress_at(difference[chosen], sources, len(names))
    return found


def _progress_at(difference: Floats, source: NDArray[np.int64], sources: int) -> Progress:
    """Progress at one level: differences (n,) of probes, and the number of each one's source.

    SE² = G/(G-1) Σ_g (Σ_{i∈g} (d_i - d̄))² / n², the cluster-robust variance of a mean over the G
    sources of a level.
    """
    probes = np.bincount(source, minlength=sources)
    present = probes > 0
    mean = difference.mean()
    residuals = np.bincount(source, difference - mean, sources)
    clusters = int(present.sum())
    variance = 0.0
    if clusters > 1:
        squares = (residuals[present] ** 2).sum()
        unbiased = clusters / (clusters - 1) * squares
        variance = unbiased / len(difference) ** 2
    sums = np.bincount(source, difference, sources)
    means = np.full(sources, np.nan)
    means[present] = sums[present] / probes[present]
    by_source = tuple(map(_recorded, means.tolist()))
    return Progress(float(mean), math.sqrt(variance), by_source)


def _recorded(mean: float) -> float | None:
    """A source's mean difference as a record keeps it."""
    if math.isnan(mean):
        return None
    return float(f"{mean:.{SIGNIFICANT_DIGITS}g}")


def lead_in_se(first: Progress, second: Progress) -> float:
    """The lead of one level over another in standard errors of their difference.

    Infinite, or 0 without a lead, where the standard error is 0.
    """
    differences = _paired(first, second)
    count = len(differences)
    if count > 1:
        lead = float(differences.mean())
        deviation = float(differences.std(ddof=1))
        se = deviation / math.sqrt(count)
    else:
        lead = first.mean - second.mean
        se = math.hypot(first.se, second.se)
    if se > 0:
        return lead / se
    return math.inf if lead > 0 else 0.0


def _paired(first: Progress, second: Progress) -> Floats:
    """δ_g of the common sources."""
    if len(first.by_source) != len(second.by_source):
        return np.empty(0)
    differences: list[float] = []
    for one, other in zip(first.by_source, second.by_source, strict=True):
        if one is not None and other is not None:
            differences.append(one - other)
    return np.array(differences)


def most_progressed(progress: ByLevel, *, previous: int | None = None) -> tuple[int, float | None]:
    """(level, lead over the second in standard errors): the argmax; among equals the lowest level.

    Given `previous` (margin rule), that level is kept while the best leads it by less than one
    standard error. The lead is None if there is only one level.
    """
    levels = sorted(progress)
    # a sort is stable: among equals the lowest level stays first
    best, *others = sorted(levels, key=lambda level: -progress[level].mean)

    def lead_over(level: int) -> float:
        return lead_in_se(progress[best], progress[level])

    lead = lead_over(others[0]) if others else None
    if previous in others and lead_over(previous) < 1:
        return previous, lead
    return best, lead


# -- records

MEAN = "progress_"
SE = "progress_se_"
SOURCES = "progress_sources_"
"""Prefixes of an epoch's record; the level in percent follows."""


def to_metrics(progress: ByLevel) -> dict[str, Any]:
    """As an epoch's record: progress_30, progress_se_30, and the list progress_sources_30."""
    record: dict[str, Any] = {}
    for level, found in sorted(progress.items()):
        record[f"{MEAN}{level}"] = found.mean
        record[f"{SE}{level}"] = found.se
        if found.by_source:
            record[f"{SOURCES}{level}"] = list(found.by_source)
    return record


def from_metrics(metrics: Mapping[str, Any]) -> dict[int, Progress]:
    """The progress in an epoch's record; empty if it has none."""
    names = [name for name in metrics if name.startswith(SE)]
    levels = [int(name.removeprefix(SE)) for name in names]
    found: dict[int, Progress] = {}
    for level in sorted(levels):
        mean = metrics[f"{MEAN}{level}"]
        se = metrics[f"{SE}{level}"]
        by_source = metrics.get(f"{SOURCES}{level}", ())
        found[level] = Progress(mean, se, tuple(by_source))
    return found


def unpaired(history: Sequence[Mapping[str, Any]]) -> int:
    """How many records have progress but not its differences by source.

    The leads in them have standard errors that are not paired.
    """
    return sum(map(_is_unpaired, history))


def _is_unpaired(record: Mapping[str, Any]) -> bool:
    found = from_metrics(record).values()
    return any(not progress.by_source for progress in found)
