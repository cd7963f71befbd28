"""Which split an image is in: drawing what a data set leaves open, duplicates, long tails.

Pure numpy; a seed decides. Draws use a hash of (seed, sample), so an image that is added or removed
hardly moves the others. In all functions rows are those of a listing; arrays have shape (N,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from discl_ray.core.ids import stable_seed
from discl_ray.core.splits import MIN_IMAGES

SPLITS = ("train", "val", "test")
OWNERS = ("test", "val", "train")
"""Of files with the same bytes in several splits, the first of these keeps its own."""

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Strings = NDArray[np.object_]
"""Text, or None."""


def long_tail_sizes(head: int, imbalance: float, classes: int) -> list[int]:
    """The standard exponential profile of CIFAR-LT, from the largest class to the smallest.

    n_i = int(head * (1 / imbalance)^(i / (classes - 1)))
    """
    last = max(classes - 1, 1)
    return [int(head * (1 / imbalance) ** (i / last)) for i in range(classes)]


def order_of(sample_ids: Sequence[str], seed: int) -> Integers:
    """A shuffled order of samples; which of two comes first depends on their ids and the seed."""
    keys = [stable_seed(seed, sample_id) for sample_id in sample_ids]
    return np.argsort(np.array(keys, np.int64), kind="stable")


def long_tail(
    label: Integers, sample_ids: Sequence[str], *, imbalance: float, head: int | None, seed: int
) -> Mask:
    """Which rows of a training split a long tail keeps.

    The largest class is the head, ties are broken by label; no class is lost. `head` is the number
    of its images; default: all of them.
    """
    counts = np.bincount(label)
    falling = np.argsort(-counts, kind="stable")
    classes = [int(c) for c in falling if counts[c]]
    largest = int(counts.max()) if classes else 0
    head = min(head or largest, largest)
    sizes = long_tail_sizes(head, imbalance, len(classes))
    order = order_of(sample_ids, seed)
    keep = np.zeros(len(label), bool)
    for c, size in zip(classes, sizes, strict=True):
        members = order[label[order] == c]
        keep[members[: max(size, 1)]] = True
    return keep


def draw(
    label: Integers, group: Strings, sample_ids: Sequence[str], *, fraction: float, seed: int
) -> Mask:
    """Which rows of a pool move to another split: about `fraction`, in [0, 1), of every class.

    MIN_IMAGES of a class always stay. Rows of one group (not None) move or stay together.
    """
    taken = np.zeros(len(label), bool)
    if fraction <= 0 or not len(label):
        return taken
    order = order_of(sample_ids, seed)
    if any(name is not None for name in group):
        return _draw_groups(label, group, order, fraction)
    for c in np.unique(label):
        members = order[label[order] == c]
        share = round(len(members) * fraction)
        count = min(share, len(members) - MIN_IMAGES)
        taken[members[: max(count, 0)]] = True
    return taken


def _draw_groups(label: Integers, group: Strings, order: Integers, fraction: float) -> Mask:
    """Whole groups in a random order, if they bring every class nearer to its share.

    A group that would leave less than MIN_IMAGES of a class stays.
    """
    left = np.bincount(label)
    wanted = left * fraction
    got = np.zeros_like(wanted)
    taken = np.zeros(len(label), bool)
    for rows in _members(group, order).values():
        counts = np.bincount(label[rows], minlength=len(left))
        has = counts > 0
        before = np.abs(wanted - got)[has]
        after = np.abs(wanted - got - counts)[has]
        enough = left[has] - counts[has] >= MIN_IMAGES
        if after.sum() < before.sum() and enough.all():
            taken[rows] = True
            got = got + counts
            left = left - counts
    return taken


def _members(group: Strings, order: Integers) -> dict[object, list[int]]:
    """The rows of each group, in a given order; a row without a group is one of its own."""
    names = group.tolist()
    members: dict[object, list[int]] = {}
    for row in order.tolist():
        name = names[row]
        key = (row,) if name is None else name
        members.setdefault(key, []).append(row)
    return members


class _Draw(NamedTuple):
    """One draw from the training pool."""

    split: str
    fraction: float


def fill_splits(
    split: Strings,
    label: Integers,
    group: Strings,
    sample_ids: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> Strings:
    """The split of every row: what is open is drawn.

    A data set without val (or test) gives some of its training images; a split that it has stays
    as it is. Fractions are of the whole training pool, in [0, 1).
    """
    full = split.copy()
    full[[name is None for name in split]] = "train"
    has = set(split.tolist())
    draws = [_Draw("val", val_fraction)]
    if "test" not in has:
        # test is drawn first, so val's share is of what is left of the whole
        rest = 1 - test_fraction
        draws = [_Draw("test", test_fraction), _Draw("val", val_fraction / rest)]
    for number, (name, fraction) in enumerate(draws):
        if name in has:
            continue
        pool = np.flatnonzero(full == "train")
        moved = draw(
            label[pool],
            group[pool],
            [sample_ids[row] for row in pool.tolist()],
            fraction=fraction,
            seed=stable_seed(seed, number, name),
        )
        full[pool[moved]] = name
    return full


def conflicts(label: Integers, sha256: Strings) -> Integers:
    """For each row another one with its bytes and another label; -1 if there is none."""
    labels = label.tolist()
    hashes = sha256.tolist()
    first: dict[str, dict[int, int]] = {}
    for row, digest in enumerate(hashes):
        first.setdefault(digest, {}).setdefault(labels[row], row)
    other = np.full(len(label), -1, np.int64)
    for row, digest in enumerate(hashes):
        if len(first[digest]) > 1:
            other[row] = _other_row(first[digest], labels[row])
    return other


def _other_row(rows: Mapping[int, int], label: int) -> int:
    """The first row of another label; `rows` is by label."""
    others = (row for theirs, row in rows.items() if theirs != label)
    return next(others)


def duplicates(split: Strings, sha256: Strings) -> Strings:
    """For each row None, or the split that keeps its bytes: an earlier one of OWNERS."""
    owner: dict[str, str] = {}
    for name in reversed(OWNERS):
        inside = sha256[split == name]
        owner |= dict.fromkeys(inside.tolist(), name)
    owners = [owner[digest] for digest in sha256.tolist()]
    kept_by = np.array(owners, object)
    kept_by[kept_by == split] = None
    return kept_by
