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
"""In the order in which people name them."""

OWNERS = ("test", "val", "train")
"""Of files with the same bytes in several splits, the first of these keeps its own."""

Integers = NDArray[np.int64]
"""Labels, or numbers of rows."""

Mask = NDArray[np.bool_]
"""Which rows are meant."""

Strings = NDArray[np.object_]
"""Text, or None."""


def long_tail_sizes(head: int, imbalance: float, classes: int) -> list[int]:
    """The standard exponential profile of CIFAR-LT, from the largest class to the smallest.

    n_i = int(head * (1 / imbalance)^(i / (classes - 1)))
    """
    last = max(classes - 1, 1)  # a single class has the exponent 0
    ratio = 1 / imbalance
    sizes: list[int] = []
    for i in range(classes):
        share = i / last
        size = head * ratio**share
        sizes.append(int(size))
    return sizes


def order_of(sample_ids: Sequence[str], seed: int) -> Integers:
    """A shuffled order of samples; which of two comes first depends on their ids and the seed."""
    hashes = [stable_seed(seed, sample_id) for sample_id in sample_ids]
    keys = np.array(hashes, np.int64)
    return np.argsort(keys, kind="stable")


def rows_of(label: Integers, c: int, order: Integers) -> Integers:
    """The rows of class `c`, in a given order of all rows."""
    mine = label[order] == c
    return order[mine]


def long_tail(
    label: Integers, sample_ids: Sequence[str], *, imbalance: float, head: int | None, seed: int
) -> Mask:
    """Which rows of a training split a long tail keeps.

    The largest class is the head, ties are broken by label; no class is lost. `head` is the number
    of its images; default: all of them.
    """
    keep = np.zeros(len(label), bool)
    if not len(label):
        return keep
    counts = np.bincount(label)
    # stable, so that of equally large classes the lower label comes first
    falling = np.argsort(-counts, kind="stable")
    classes = [c for c in falling.tolist() if counts[c]]
    largest = int(counts.max())
    head = min(head or largest, largest)
    sizes = long_tail_sizes(head, imbalance, len(classes))
    order = order_of(sample_ids, seed)
    for c, size in zip(classes, sizes, strict=True):
        members = rows_of(label, c, order)
        kept = max(size, 1)
        keep[members[:kept]] = True
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
    has_groups = any(name is not None for name in group)
    if has_groups:
        return _draw_groups(label, group, order, fraction)
    for c in np.unique(label):
        members = rows_of(label, c, order)
        total = len(members)
        most = total - MIN_IMAGES
        share = round(total * fraction)
        count = min(share, most)
        moved = max(count, 0)  # `most` is negative for a class of fewer
        taken[members[:moved]] = True
    return taken


def _draw_groups(label: Integers, group: Strings, order: Integers, fraction: float) -> Mask:
    """Whole groups in a random order, if they bring every class nearer to its share.

    A group that would leave less than MIN_IMAGES of a class stays.
    """
    left = np.bincount(label)
    wanted = left * fraction
    got = np.zeros_like(wanted)
    classes = len(left)
    taken = np.zeros(len(label), bool)
    members = _members(group, order)
    for rows in members.values():
        own = label[rows]
        counts = np.bincount(own, minlength=classes)
        has = counts > 0
        lacking = wanted - got
        before = np.abs(lacking)[has]
        after = np.abs(lacking - counts)[has]
        remaining = left[has] - counts[has]
        enough = remaining >= MIN_IMAGES
        nearer = after.sum() < before.sum()
        if nearer and enough.all():
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
        # a tuple is no text, so it is never the name of a group
        key = (row,) if name is None else name
        rows = members.setdefault(key, [])
        rows.append(row)
    return members


class _Draw(NamedTuple):
    """One draw from the training pool."""

    split: str
    fraction: float
    """Of each class of the pool as it is then."""


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
    has = set(split.tolist())
    draws = _draws(val_fraction, test_fraction, has_test="test" in has)
    full = split.copy()
    open_ = [name is None for name in split]
    full[open_] = "train"
    for number, (name, fraction) in enumerate(draws):
        if name in has:
            continue
        pool = np.flatnonzero(full == "train")
        ids = [sample_ids[row] for row in pool.tolist()]
        moved = draw(
            label[pool], group[pool], ids, fraction=fraction, seed=stable_seed(seed, number, name)
        )
        rows = pool[moved]
        full[rows] = name
    return full


def _draws(val_fraction: float, test_fraction: float, *, has_test: bool) -> list[_Draw]:
    """What is drawn from the training pool, in this order."""
    if has_test:
        return [_Draw("val", val_fraction)]
    # test is drawn first, so val's share is of what is left of the whole
    rest = 1 - test_fraction
    test = _Draw("test", test_fraction)
    val = _Draw("val", val_fraction / rest)
    return [test, val]


def conflicts(label: Integers, sha256: Strings) -> Integers:
    """For each row another one with its bytes and another label; -1 if there is none."""
    labels = label.tolist()  # Python's own numbers, which are faster one by one
    hashes = sha256.tolist()
    first: dict[str, dict[int, int]] = {}  # bytes -> label -> the first row with both
    for row, digest in enumerate(hashes):
        rows = first.setdefault(digest, {})
        rows.setdefault(labels[row], row)
    others = np.full(len(label), -1, np.int64)
    for row, digest in enumerate(hashes):
        others[row] = _other_row(first[digest], labels[row])
    return others


def _other_row(rows: Mapping[int, int], label: int) -> int:
    """The first row of another label, -1 if there is none; `rows` is by label."""
    for theirs, row in rows.items():
        if theirs != label:
            return row
    return -1


def duplicates(split: Strings, sha256: Strings) -> Strings:
    """For each row None, or the split that keeps its bytes: an earlier one of OWNERS."""
    owner: dict[str, str] = {}
    # the least first, so that the greatest has the last word
    for name in reversed(OWNERS):
        inside = split == name
        hashes = sha256[inside].tolist()
        owner |= dict.fromkeys(hashes, name)
    every = sha256.tolist()
    owners = [owner[digest] for digest in every]
    kept_by = np.array(owners, object)
    kept_by[kept_by == split] = None
    return kept_by
