"""Intervals of means over seeds and of paired differences, by bootstrap. Pure numpy.

Each resample draws seeds, then test images of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from discl_ray.core.metrics import macro_f1

Integers = NDArray[np.int64]

RESAMPLES = 2000

CONFIDENCE = 0.95


class Predicted(NamedTuple):
    """Labels and predictions of one run on the test images, arrays of shape (N,)."""

    label: Integers
    predicted: Integers
    part: NDArray[np.bool_]
    """Which images a figure is about: those of a group of classes, or of a domain."""


class Interval(NamedTuple):
    """A mean over seeds and the bounds of its percentile-bootstrap interval."""

    mean: float
    low: float
    high: float


def top1(label: Integers, predicted: Integers) -> float:
    """Accuracy in percent; NaN without images."""
    if not len(label):
        return float("nan")
    correct = label == predicted
    return 100 * float(correct.mean())


Figure = Callable[[Integers, Integers], float]
"""(labels, predictions) -> percent."""

FIGURES: dict[str, Figure] = {"top1": top1, "macro_f1": macro_f1}


def fast_macro_f1(label: Integers, predicted: Integers) -> float:
    """`macro_f1` in percent from counts alone, fast enough for thousands of resamples.

    F1 of a class is 2 TP / (true + predicted); the mean is over the classes in `label`, shape (N,).
    """
    if not len(label):
        return float("nan")
    classes = int(max(label.max(), predicted.max())) + 1
    true = np.bincount(label, minlength=classes)
    positive = np.bincount(predicted, minlength=classes)
    hit = np.bincount(label[label == predicted], minlength=classes)
    present = true > 0
    f1 = 2 * hit[present] / (true[present] + positive[present])
    return 100 * float(f1.mean())


RESAMPLED = FIGURES | {"macro_f1": fast_macro_f1}


def over_seeds(values: NDArray[np.float64], *, seed: int = 0) -> Interval:
    """The mean of one figure a seed, with the bootstrap interval over seeds alone."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(values), size=(RESAMPLES, len(values)))
    return _bounded(float(values.mean()), values[drawn].mean(1))


def _bounded(mean: float, resampled: NDArray[np.floating]) -> Interval:
    """A mean with the percentiles of its resamples."""
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean, float(low), float(high))


def interval(
    runs: Sequence[Predicted],
    metric: str,
    baselines: Sequence[Predicted] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """The mean over seeds of a figure, or of its difference to paired `baselines`, with interval.

    Each resample draws seeds with replacement, and for each of them test images with replacement,
    the same ones for a run and its baseline. Seeds in which no image belongs to the figure are left
    out; NaN if that is all of them.
    """
    bases = [None] * len(runs) if baselines is None else baselines
    pairs = [pair for pair in zip(runs, bases, strict=True) if pair[0].part.any()]
    if not pairs:
        return Interval(float("nan"), float("nan"), float("nan"))
    figure = RESAMPLED[metric]
    rng = np.random.default_rng(seed)

    def value(pair: tuple[Predicted, Predicted | None], at: Integers) -> float:
        run, base = pair
        own = figure(run.label[at], run.predicted[at])
        if base is None:
            return own
        return own - figure(base.label[at], base.predicted[at])

    places = [np.flatnonzero(run.part) for run, _ in pairs]
    exact = [value(pair, at) for pair, at in zip(pairs, places, strict=True)]
    resampled: list[float] = []
    for _ in range(resamples):
        values: list[float] = []
        for number in rng.integers(len(pairs), size=len(pairs)):
            at = places[number]
            drawn = rng.integers(len(at), size=len(at))
            values.append(value(pairs[number], at[drawn]))
        resampled.append(float(np.mean(values)))
    return _bounded(float(np.mean(exact)), np.array(resampled))
