"""Intervals of means over seeds and of paired differences: bootstrap over seeds, then over the test images of each. Pure numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from discl_ray.core.metrics import macro_f1

RESAMPLES = 2000

LEVEL = 0.95


class Predicted(NamedTuple):
    """What one run said of the test images, arrays of shape (N,)."""

    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    part: NDArray[np.bool_]
    """Which images a figure is about: those of a group of classes, or of a domain."""


class Interval(NamedTuple):
    """A mean over seeds and the bounds of its percentile-bootstrap interval."""

    mean: float
    low: float
    high: float


def top1(label: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Accuracy in percent; NaN without images."""
    return 100 * float((label == predicted).mean()) if len(label) else float("nan")


FIGURES: dict[str, Callable[[NDArray[np.int64], NDArray[np.int64]], float]] = {
    "top1": top1,
    "macro_f1": macro_f1,
}
"""(labels, predictions) -> percent."""


def fast_macro_f1(label: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """`macro_f1` from counts alone: 2 TP / (true + predicted), over the classes in `label`; for thousands of resamples."""
    size = int(max(label.max(initial=0), predicted.max(initial=0))) + 1
    true, said = np.bincount(label, minlength=size), np.bincount(predicted, minlength=size)
    hit = np.bincount(label[label == predicted], minlength=size)
    there = true > 0
    return (
        100 * float((2 * hit[there] / (true[there] + said[there])).mean())
        if there.any()
        else float("nan")
    )


RESAMPLED = FIGURES | {"macro_f1": fast_macro_f1}


def over_seeds(values: NDArray[np.float64], *, seed: int = 0) -> Interval:
    """The mean of one figure a seed, with the bootstrap interval over seeds alone."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def interval(
    runs: Sequence[Predicted],
    metric: str,
    baselines: Sequence[Predicted] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """The mean over seeds of a figure, or of its difference to paired `baselines`, with the interval.

    Each resample draws seeds with replacement, and for each of them test images with replacement, the same ones for a run and its
    baseline. Seeds in which no image belongs to the figure are left out; NaN if that is all.
    """
    pairs = [
        (run, None if baselines is None else baselines[i])
        for i, run in enumerate(runs)
        if run.part.any()
    ]
    if not pairs:
        return Interval(float("nan"), float("nan"), float("nan"))
    figure, rng = RESAMPLED[metric], np.random.default_rng(seed)

    def value(pair: tuple[Predicted, Predicted | None], at: NDArray[np.int64]) -> float:
        run, base = pair
        own = figure(run.label[at], run.predicted[at])
        return own if base is None else own - figure(base.label[at], base.predicted[at])

    places = [np.flatnonzero(run.part) for run, _ in pairs]
    mean = float(np.mean([value(pair, at) for pair, at in zip(pairs, places, strict=True)]))
    drawn = []
    for _ in range(resamples):
        chosen = rng.integers(len(pairs), size=len(pairs))
        drawn.append(
            np.mean(
                [
                    value(pairs[i], places[i][rng.integers(len(places[i]), size=len(places[i]))])
                    for i in chosen
                ]
            )
        )
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))
