"""Scores of predictions: top-1 accuracy by group of classes, and macro F1 by domain as WILDS computes it.

Accuracy within a group is over its images, so on a balanced test set every class weighs the same. Macro F1 is the mean over the
classes that are in the truth; one that is never predicted counts as 0. What has no image has no score: NaN, printed as a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

GROUPS = ("many", "medium", "few", "overall")

DOMAINS = ("id", "ood")
"""Domains of data sets whose test images come from where training images did, and from elsewhere."""

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
    of = np.array([groups[int(c)] for c in label])
    picks = {g: np.ones(len(label), bool) if g == "overall" else of == g for g in GROUPS}
    return {
        g: (100 * float(correct[m].mean()) if m.any() else float("nan"), int(m.sum()))
        for g, m in picks.items()
    }


def macro_f1(label: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Mean F1 in percent over the classes that are in `label` (WILDS); NaN without images."""
    if not len(label):
        return float("nan")
    from sklearn.metrics import (
        f1_score,
    )  # takes most of a second to import, and workers without domains never need it

    zero = cast(Any, 0)
    return 100 * float(
        f1_score(label, predicted, labels=np.unique(label), average="macro", zero_division=zero)
    )


def scores(
    label: NDArray[np.int64],
    predicted: NDArray[np.int64],
    groups: Mapping[int, str],
    domain: NDArray[np.str_],
) -> Scores:
    """Top-1 by group; where images are of the domains `id` and `ood`, macro F1 and top-1 of each as well."""
    found: Scores = {
        ("top1", g): value for g, value in top1_by_group(label, predicted, groups).items()
    }
    if set(DOMAINS) <= set(np.unique(domain).tolist()):
        for name in DOMAINS:
            mine = domain == name
            found["macro_f1", name] = (macro_f1(label[mine], predicted[mine]), int(mine.sum()))
            found["top1", name] = (100 * float((label == predicted)[mine].mean()), int(mine.sum()))
    return found


def main_metric(found: Mapping[tuple[str, str], Any]) -> tuple[str, str]:
    """By what one choice is better than another on val: macro F1 on other domains where there are, else overall top-1."""
    return ("macro_f1", "ood") if ("macro_f1", "ood") in found else ("top1", "overall")


def adjusted(
    probabilities: NDArray[np.float64], counts: NDArray[np.int64], tau: float
) -> NDArray[np.int64]:
    """The classes of argmax_c log p_c - τ log π_c: post-hoc logit adjustment (Menon et al. 2021, Eq. 9). Shape (N,)."""
    prior = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    return (np.log(np.maximum(probabilities, 1e-30)) - tau * np.log(prior)).argmax(1)
