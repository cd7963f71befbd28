"""Intervals of means over seeds and of paired differences, by bootstrap. Pure numpy.

Each resample draws seeds, then test images of each.
"""

from __future__ import annotations

import math
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

    def value(self, figure: Figure, at: Integers) -> float:
        """The figure of some images by number, which may come more than once."""
        label = self.label[at]
        predicted = self.predicted[at]
        return figure(label, predicted)


class Interval(NamedTuple):
    """A mean over seeds and the bounds of its percentile-bootstrap interval."""

    mean: float
    low: float
    high: float


def top1(label: Integers, predicted: Integers) -> float:
    """Accuracy in percent; NaN without images."""
    if not len(label):
        return math.nan
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
        return math.nan
    last = max(label.max(), predicted.max())
    classes = int(last) + 1
    true = np.bincount(label, minlength=classes)
    positive = np.bincount(predicted, minlength=classes)
    correct = label[label == predicted]
    hit = np.bincount(correct, minlength=classes)
    present = true > 0
    both = true[present] + positive[present]
    f1 = 2 * hit[present] / both
    return 100 * float(f1.mean())


RESAMPLED = FIGURES | {"macro_f1": fast_macro_f1}


def over_seeds(values: NDArray[np.float64], *, seed: int = 0) -> Interval:
    """The mean of one figure a seed, with the bootstrap interval over seeds alone."""
    rng = np.random.default_rng(seed)
    count = len(values)
    drawn = rng.integers(count, size=(RESAMPLES, count))
    mean = float(values.mean())
    resampled = values[drawn].mean(1)
    return _bounded(mean, resampled)


def _bounded(mean: float, resampled: NDArray[np.floating]) -> Interval:
    """A mean with the percentiles of its resamples."""
    lower = (1 - CONFIDENCE) / 2
    upper = (1 + CONFIDENCE) / 2
    low, high = np.quantile(resampled, [lower, upper])
    return Interval(mean, float(low), float(high))


class _Pair(NamedTuple):
    """A run, and what it is compared with, if anything."""

    run: Predicted
    base: Predicted | None

    def value(self, figure: Figure, at: Integers) -> float:
        """The figure of some images, or its difference to that of the baseline."""
        own = self.run.value(figure, at)
        if self.base is None:
            return own
        return own - self.base.value(figure, at)


def _pairs(runs: Sequence[Predicted], baselines: Sequence[Predicted] | None) -> list[_Pair]:
    """The runs in which an image belongs to the figure, each with its baseline."""
    bases = [None] * len(runs) if baselines is None else baselines
    pairs: list[_Pair] = []
    for run, base in zip(runs, bases, strict=True):
        if run.part.any():
            pairs.append(_Pair(run, base))
    return pairs


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
    pairs = _pairs(runs, baselines)
    if not pairs:
        return Interval(math.nan, math.nan, math.nan)
    figure = RESAMPLED[metric]
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(pair.run.part) for pair in pairs]
    exact: list[float] = []
    for pair, at in zip(pairs, places, strict=True):
        exact.append(pair.value(figure, at))
    count = len(pairs)
    means = np.empty(resamples)
    for resample in range(resamples):
        values: list[float] = []
        for number in rng.integers(count, size=count):
            at = places[number]
            drawn = rng.integers(len(at), size=len(at))
            value = pairs[number].value(figure, at[drawn])
            values.append(value)
        means[resample] = np.mean(values)
    mean = float(np.mean(exact))
    return _bounded(mean, means)
