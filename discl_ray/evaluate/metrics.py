"""Top-1 accuracy by group of classes: many, medium, few (by number of real training images) and overall.

Accuracy within a group is over its images, so on a balanced test set every class weighs the same. A group without images has no
accuracy and prints as a dash.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GROUPS = ("many", "medium", "few", "overall")


def group_of(count: int, *, few_below: int, many_above: int) -> str:
    """The group of a class with `count` real training images."""
    return "few" if count < few_below else "many" if count > many_above else "medium"


def top1_by_group(
    label: NDArray[np.int64], predicted: NDArray[np.int64], groups: dict[int, str]
) -> dict[str, tuple[float, int]]:
    """Group -> (top-1 accuracy in percent, number of images); NaN for a group without images."""
    correct = label == predicted
    of = np.array([groups[int(c)] for c in label])
    picks = {g: np.ones(len(label), bool) if g == "overall" else of == g for g in GROUPS}
    return {g: (100 * float(correct[m].mean()) if m.any() else float("nan"), int(m.sum())) for g, m in picks.items()}
