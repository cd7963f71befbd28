"""Scores of predictions: top-1 accuracy by group of classes, and macro F1 by domain as in WILDS.

Accuracy within a group is over its images, so on a balanced test set every class weighs the same.
Macro F1 is the mean over the classes that are in the truth; one that is never predicted counts as
0. The score of no images is NaN, printed as a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

GROUPS = ("many", "medium", "few", "overall")

DOMAINS = ("id", "ood")
"""Domains of data sets with test images from the places of training images, and from others."""

Scores = dict[tuple[str, str], tuple[float, int]]
"""(metric, group or domain) -> (percent, images)."""


def group_of(count: int, *, few_below: int, many_above: int) -> str:
    """The group of a class with `count` real training images."""
    return "few" if count < few_below else "many" if count > many_above else "medium"


def top1_by_group(
    label: NDArray[np.int64], predicted: NDArray[np.int64], groups: Mapping[int, str]
) -> dict[str, tuple[float, int]]:
    """Group -> (top-1 accuracy in percent, number of images); NaN for a group without images."""
    correct = label == predicted
    group_by_row = np.array([groups[int(c)] for c in label])
    scores: dict[str, tuple[float, int]] = {}
    for group in GROUPS:
        inside = np.ones(len(label), bool) if group == "overall" else group_by_row == group
        scores[group] = _top1(correct[inside])
    return scores


def _top1(correct: NDArray[np.bool_]) -> tuple[float, int]:
    """Top-1 accuracy in percent, and the number of images."""
    if not len(correct):
        return float("nan"), 0
    return 100 * float(correct.mean()), len(correct)


def macro_f1(label: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Mean F1 in percent over the classes that are in `label` (WILDS); NaN without images."""
    if not len(label):
        return float("nan")
    # Importing it takes most of a second, and workers without domains do not need it.
    from sklearn import metrics  # pyright: ignore[reportMissingTypeStubs]

    f1_score: Any = cast(Any, metrics).f1_score
    classes = np.unique(label)
    return 100 * float(f1_score(label, predicted, labels=classes, average="macro", zero_division=0))


def scores(
    label: NDArray[np.int64],
    predicted: NDArray[np.int64],
    groups: Mapping[int, str],
    domain: NDArray[np.str_],
) -> Scores:
    """Top-1 by group; with images of both domains `id` and `ood`, macro F1 and top-1 of each, too.

    All arrays have shape (N,); `domain` holds a name for each image.
    """
    found: Scores = {}
    for group, value in top1_by_group(label, predicted, groups).items():
        found["top1", group] = value
    if set(DOMAINS) <= set(np.unique(domain).tolist()):
        for name in DOMAINS:
            inside = domain == name
            truth, guess = label[inside], predicted[inside]
            found["macro_f1", name] = (macro_f1(truth, guess), len(truth))
            found["top1", name] = _top1(truth == guess)
    return found


def main_metric(found: Mapping[tuple[str, str], Any]) -> tuple[str, str]:
    """The metric that choices on val use: macro F1 on `ood` if measured, else overall top-1."""
    return ("macro_f1", "ood") if ("macro_f1", "ood") in found else ("top1", "overall")


def adjusted(
    probabilities: NDArray[np.float64], counts: NDArray[np.int64], tau: float
) -> NDArray[np.int64]:
    """argmax_c log p_c - τ log π_c, post-hoc logit adjustment (Menon et al. 2021, Eq. 9).

    `probabilities` has shape (N, classes), `counts` (classes,) holds training images by class.
    Returns classes, shape (N,).
    """
    at_least_one = np.maximum(counts, 1)
    log_prior = np.log(at_least_one / at_least_one.sum())
    logits = np.log(np.maximum(probabilities, 1e-30))  # log 0 is not finite
    return (logits - tau * log_prior).argmax(1)
