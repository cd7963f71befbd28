"""Which split an image is in: duplicates, drawing what a data set leaves open, and long tails. Pure numpy; a seed decides.

Draws go by a hash of (seed, sample), so an image that is added or taken away hardly moves the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from discl_ray.core.ids import stable_seed
from discl_ray.core.splits import MIN_IMAGES

SPLITS = ("train", "val", "test")
OWNERS = ("test", "val", "train")
"""Of files with the same bytes in several splits, the first of these keeps its own."""

Strings = NDArray[np.object_]


def long_tail_sizes(head: int, imbalance: float, classes: int) -> list[int]:
    """n_i = int(head * (1 / imbalance)^(i / (classes - 1))), the standard exponential profile (CIFAR-LT)."""
    return [int(head * (1 / imbalance) ** (i / max(classes - 1, 1))) for i in range(classes)]


def order_of(sample_ids: Sequence[str], seed: int) -> NDArray[np.int64]:
    """A shuffled order of samples that depends on each one's id and the seed alone."""
    return np.argsort(np.array([stable_seed(seed, s) for s in sample_ids], np.int64), kind="stable")


def long_tail(
    label: NDArray[np.int64],
    sample_ids: Sequence[str],
    *,
    imbalance: float,
    head: int | None,
    seed: int,
) -> NDArray:
    """Which rows of a training split a long tail keeps, shape (N,), bool; the largest class is the head, ties by label."""
    counts = np.bincount(label)
    classes = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
    largest = int(counts.max()) if classes else 0
    sizes = long_tail_sizes(min(head or largest, largest), imbalance, len(classes))
    keep = np.zeros(len(label), bool)
    order = order_of(sample_ids, seed)
    for c, size in zip(classes, sizes, strict=True):
        keep[order[label[order] == c][: max(size, 1)]] = True
    return keep


def draw(
    label: NDArray[np.int64],
    group: Strings,
    sample_ids: Sequence[str],
    *,
    fraction: float,
    seed: int,
) -> NDArray[np.bool_]:
    """Which rows leave a pool for another split, about `fraction` of every class; MIN_IMAGES of a class always stay.

    Rows of one group (not null) leave or stay together.
    """
    taken = np.zeros(len(label), bool)
    if fraction <= 0 or not len(label):
        return taken
    order = order_of(sample_ids, seed)
    if all(g is None for g in group):
        for c in np.unique(label):
            members = order[label[order] == c]
            count = min(round(len(members) * fraction), len(members) - MIN_IMAGES)
            taken[members[: max(count, 0)]] = True
        return taken
    return _draw_groups(label, group, order, fraction)


def _draw_groups(
    label: NDArray[np.int64], group: Strings, order: NDArray[np.int64], fraction: float
) -> NDArray[np.bool_]:
    """Whole groups, in the order drawn, while they bring every class nearer to its share and leave enough of it."""
    left = np.bincount(label)
    wanted = left * fraction
    got = np.zeros_like(wanted)
    members: dict[object, list[int]] = {}
    groups = group.tolist()
    for i in order.tolist():
        members.setdefault((i,) if groups[i] is None else groups[i], []).append(i)
    taken = np.zeros(len(label), bool)
    for rows in members.values():
        counts = np.bincount(label[rows], minlength=len(left))
        has = counts > 0
        nearer = np.abs(wanted - got - counts)[has].sum() < np.abs(wanted - got)[has].sum()
        if nearer and (left[has] - counts[has] >= MIN_IMAGES).all():
            taken[rows] = True
            got, left = got + counts, left - counts
    return taken


def fill_splits(
    split: Strings,
    label: NDArray[np.int64],
    group: Strings,
    sample_ids: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> Strings:
    """The split of every row. What is open is drawn; a data set without val (or test) gives some of its training images.

    A split the data set has is left as it is.
    """
    full = split.copy()
    has = set(split.tolist()) - {None}
    full[[s is None for s in full]] = "train"
    drawn_from_train = (
        [("test", test_fraction), ("val", val_fraction)]
        if "test" not in has
        else [("val", val_fraction)]
    )
    for number, (name, fraction) in enumerate(drawn_from_train):
        if name in has:
            continue
        pool = np.flatnonzero(full == "train")
        ids = [sample_ids[i] for i in pool.tolist()]
        # test is drawn first, so val's share is of what the whole was
        share = fraction / (1 - test_fraction) if name == "val" and "test" not in has else fraction
        full[
            pool[
                draw(
                    label[pool],
                    group[pool],
                    ids,
                    fraction=share,
                    seed=stable_seed(seed, number, name),
                )
            ]
        ] = name
    return full


def conflicts(label: NDArray[np.int64], sha256: Strings) -> NDArray[np.int64]:
    """For each row another one with its bytes and another label; -1 if there is none."""
    labels: dict[str, dict[int, int]] = {}
    for row, (h, c) in enumerate(zip(sha256.tolist(), label.tolist(), strict=True)):
        labels.setdefault(h, {}).setdefault(c, row)
    other = np.full(len(label), -1, np.int64)
    for row, (h, c) in enumerate(zip(sha256.tolist(), label.tolist(), strict=True)):
        if len(labels[h]) > 1:
            other[row] = next(first for theirs, first in labels[h].items() if theirs != c)
    return other


def duplicates(split: Strings, sha256: Strings) -> Strings:
    """For each row null, or the split that keeps its bytes because an earlier one of OWNERS has them, too."""
    owner: dict[str, str] = {}
    for name in reversed(OWNERS):
        owner.update(dict.fromkeys(sha256[split == name].tolist(), name))
    return np.array(
        [
            owner[h] if owner[h] != s else None
            for h, s in zip(sha256.tolist(), split.tolist(), strict=True)
        ],
        object,
    )
