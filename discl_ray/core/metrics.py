"""Scores of predictions: top-1 accuracy by group of classes, and macro F1 by domain as in WILDS.

Accuracy within a group is over its images, so on a balanced test set every class weighs the same.
Macro F1 is the mean over the classes that are in the truth; one that is never predicted counts as
0. The score of no images is NaN, printed as a dash.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

GROUPS = ("many", "medium", "few", "overall")

DOMAINS = ("id", "ood")
"""Domains of data sets with test images from the places of training images, and from others."""

Score = tuple[float, int]
"""Percent, and the number of images it is measured on."""

Measure = tuple[str, str]
"""A metric, and the group or domain whose images it is measured on."""

Scores = dict[Measure, Score]

Labels: TypeAlias = NDArray[np.int64]
"""Classes, shape (N,)."""


def group_of(count: int, *, few_below: int, many_above: int) -> str:
    """The group of a class with `count` real training images."""
    if count < few_below:
        return "few"
    if count > many_above:
        return "many"
    return "medium"


def top1_by_group(label: Labels, predicted: Labels, groups: Mapping[int, str]) -> dict[str, Score]:
    """Group -> (top-1 accuracy in percent, number of images); NaN for a group without images."""
    correct = label == predicted
    of_images = [groups[number] for number in label.tolist()]
    group_by_row = np.array(of_images)
    scores: dict[str, Score] = {}
    for group in GROUPS:
        if group == "overall":
            scores[group] = _top1(correct)
        else:
            inside = group_by_row == group
            scores[group] = _top1(correct[inside])
    return scores


def _top1(correct: NDArray[np.bool_]) -> Score:
    """Top-1 accuracy in percent, and the number of images."""
    if not len(correct):
        return float("nan"), 0
    accuracy = float(correct.mean())
    return 100 * accuracy, len(correct)


def macro_f1(label: Labels, predicted: Labels) -> float:
    """Mean F1 in percent over the classes that are in `label` (WILDS); NaN without images."""
    if not len(label):
        return float("nan")
    # Importing it takes most of a second, and workers without domains do not need it.
    from sklearn import metrics  # pyright: ignore[reportMissingTypeStubs]

    f1_score: Any = cast(Any, metrics).f1_score
    classes = np.unique(label)
    f1 = f1_score(label, predicted, labels=classes, average="macro", zero_division=0)
    return 100 * float(f1)


def scores(
    label: Labels, predicted: Labels, groups: Mapping[int, str], domain: NDArray[np.str_]
) -> Scores:
    """Top-1 by group; with images of both domains `id` and `ood`, macro F1 and top-1 of each, too.

    All arrays have shape (N,); `domain` holds a name for each image.
    """
    found: Scores = {}
    for group, value in top1_by_group(label, predicted, groups).items():
        found["top1", group] = value
    present = set(np.unique(domain).tolist())
    if not present.issuperset(DOMAINS):
        return found
    for name in DOMAINS:
        inside = domain == name
        truth = label[inside]
        guess = predicted[inside]
        f1 = macro_f1(truth, guess)
        found["macro_f1", name] = (f1, len(truth))
        found["top1", name] = _top1(truth == guess)
    return found


def main_metric(found: Container[Measure]) -> Measure:
    """The metric that choices on val use: macro F1 on `ood` if measured, else overall top-1."""
    shifted = ("macro_f1", "ood")
    if shifted in found:
        return shifted
    return ("top1", "overall")


def adjusted(probabilities: NDArray[np.float64], counts: NDArray[np.int64], tau: float) -> Labels:
    """argmax_c log p_c - τ log π_c, post-hoc logit adjustment (Menon et al. 2021, Eq. 9).

    `probabilities` has shape (N, classes), `counts` (classes,) holds training images by class.
    Returns classes, shape (N,).
    """
    at_least_one = np.maximum(counts, 1)
    prior = at_least_one / at_least_one.sum()
    positive = np.maximum(probabilities, 1e-30)  # log 0 is not finite
    log_prior = np.log(prior)
    logits = np.log(positive) - tau * log_prior
    return logits.argmax(1)
