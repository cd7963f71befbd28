"""Which split an image is in: drawing what a data set leaves open, duplicates, long tails.

By columns of numbers; a seed decides. Draws use a hash of (seed, sample), so an image that is added
or removed hardly moves the others. In all functions rows are those of a listing; arrays have shape
(N,).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core.arrays import Bools, Ints
from discl_ray.core.columns import Column, as_dictionary, fill_null, places_in
from discl_ray.core.ids import stable_seed, stable_seeds
from discl_ray.core.splits import MIN_IMAGES

SPLITS = ("train", "val", "test")
"""In the order in which people name them; a split is a number in code: its place here."""

TRAIN, VAL, TEST = range(len(SPLITS))

OWNERS = (TEST, VAL, TRAIN)
"""Of files with the same bytes in several splits, the first of these keeps its own."""

NONE = -1
"""In the place of a number: an open split, no group, no other row."""

BLOCK = 100_000
"""Samples whose ids are hashed at once: the texts take memory only so long."""

Codes = NDArray[np.int32]
"""Splits, or groups or contents of files: equal numbers are equal texts, NONE is null."""


def codes_of(column: Column) -> Codes:
    """A column of text as numbers, by first appearance."""
    indices = as_dictionary(column).indices
    return fill_null(indices, NONE).to_numpy(zero_copy_only=False)


def split_codes(column: Column) -> Codes:
    """A column of names of splits as their places in SPLITS; NONE where it is null."""
    places = places_in(column, SPLITS)
    return fill_null(places, NONE).to_numpy(zero_copy_only=False)


def split_names(split: Codes) -> pa.Array:
    """The names of splits; null for NONE."""
    return pa.array(SPLITS, pa.string()).take(pa.array(split, mask=split == NONE))


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


def order_of(sample_ids: Column, seed: int) -> Ints:
    """A shuffled order of samples; which of two comes first depends on their ids and the seed."""
    keys = np.empty(len(sample_ids), np.int64)
    for start in range(0, len(keys), BLOCK):
        block = stable_seeds(seed, sample_ids.slice(start, BLOCK))
        keys[start : start + BLOCK] = block.to_numpy()
    return np.argsort(keys, kind="stable")


def _first_of_each_class(label: Ints, order: Ints, counts: Ints) -> Bools:
    """Which rows are among the first `counts[c]` of their class c, in a given order of all."""
    by_class = np.argsort(label[order], kind="stable")
    rows = order[by_class]
    sizes = np.bincount(label)
    begins = np.cumsum(sizes) - sizes
    place = np.arange(len(rows)) - np.repeat(begins, sizes)
    chosen = np.zeros(len(label), bool)
    chosen[rows] = place < np.repeat(counts, sizes)
    return chosen


def long_tail(
    label: Ints, sample_ids: Column, *, imbalance: float, head: int | None, seed: int
) -> Bools:
    """Which rows of a training split a long tail keeps.

    The largest class is the head, ties are broken by label; no class is lost. `head` is the number
    of its images; default: all of them.
    """
    if not len(label):
        return np.zeros(0, bool)
    counts = np.bincount(label)
    # stable, so that of equally large classes the lower label comes first
    falling = np.argsort(-counts, kind="stable")
    classes = falling[counts[falling] > 0]
    largest = int(counts.max())
    head = min(head or largest, largest)
    kept = np.zeros_like(counts)
    kept[classes] = long_tail_sizes(head, imbalance, len(classes))
    kept = np.maximum(kept, 1)
    return _first_of_each_class(label, order_of(sample_ids, seed), kept)


def draw(label: Ints, group: Codes, sample_ids: Column, *, fraction: float, seed: int) -> Bools:
    """Which rows of a pool move to another split: about `fraction`, in [0, 1), of every class.

    MIN_IMAGES of a class always stay. Rows of one group (not NONE) move or stay together.
    """
    if fraction <= 0 or not len(label):
        return np.zeros(len(label), bool)
    order = order_of(sample_ids, seed)
    if (group != NONE).any():
        return _draw_groups(label, group, order, fraction)
    totals = np.bincount(label)
    shares = np.rint(totals * fraction).astype(np.int64)
    moved = np.minimum(shares, totals - MIN_IMAGES)  # negative for a class of fewer
    return _first_of_each_class(label, order, moved)


def _draw_groups(label: Ints, group: Codes, order: Ints, fraction: float) -> Bools:
    """Whole groups in a random order, if they bring every class nearer to its share.

    A group that would leave less than MIN_IMAGES of a class stays.
    """
    members = _numbered_groups(group[order])
    cells = _cells(members, label[order])
    taken_groups = _Balance(np.bincount(label), fraction).take(cells)
    taken = np.zeros(len(label), bool)
    taken[order] = taken_groups[members]
    return taken


def _numbered_groups(group: Codes) -> Ints:
    """The groups' numbers by first appearance; a row without a group is one of its own."""
    alone = group == NONE
    keys = group.astype(np.int64)
    keys[alone] = group.max() + 1 + np.arange(np.count_nonzero(alone))
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]


class _Cells(NamedTuple):
    """How many rows of each class each group has: groups in their order, classes by label."""

    bounds: Ints
    """Where the cells of each group begin, and the end of all; shape (groups + 1,)."""
    labels: Ints
    counts: Ints


def _cells(members: Ints, label: Ints) -> _Cells:
    """The cells of rows; `members` are their groups' numbers, which have no gap."""
    classes = int(label.max()) + 1
    pairs, counts = np.unique(members * classes + label, return_counts=True)
    bounds = np.searchsorted(pairs // classes, np.arange(members.max() + 2))
    return _Cells(bounds, pairs % classes, counts)


class _Balance:
    """How many rows each class has given, and how many are left of it."""

    def __init__(self, sizes: Ints, fraction: float) -> None:
        # Python's own numbers, which are faster one by one
        self._wanted: list[float] = (sizes * fraction).tolist()
        self._got: list[float] = [0.0] * len(sizes)
        self._left: list[int] = sizes.tolist()

    def take(self, cells: _Cells) -> Bools:
        """Decides on one group after the other, each by what those before it left."""
        labels: list[int] = cells.labels.tolist()
        counts: list[int] = cells.counts.tolist()
        bounds: list[int] = cells.bounds.tolist()
        taken = np.zeros(len(bounds) - 1, bool)
        for number, (begin, end) in enumerate(pairwise(bounds)):
            taken[number] = self._take_group(labels[begin:end], counts[begin:end])
        return taken

    def _take_group(self, labels: list[int], counts: list[int]) -> bool:
        """Takes a group with `counts` rows of the classes `labels`, if it may be taken."""
        lacking: list[float] = []
        then: list[float] = []
        for c, count in zip(labels, counts, strict=True):
            if self._left[c] - count < MIN_IMAGES:
                return False
            lacks = self._wanted[c] - self._got[c]
            lacking.append(lacks)
            then.append(lacks - count)
        if _distance(then) >= _distance(lacking):
            return False
        for c, count in zip(labels, counts, strict=True):
            self._got[c] += count
            self._left[c] -= count
        return True


def _distance(lacking: list[float]) -> float:
    """How far some classes are from their shares."""
    if len(lacking) == 1:
        return abs(lacking[0])
    # added up by numpy: another order may round differently, and split differently
    return float(np.abs(lacking).sum())


class _Draw(NamedTuple):
    """One draw from the training pool."""

    split: int
    fraction: float
    """Of each class of the pool as it is then."""


def fill_splits(
    split: Codes,
    label: Ints,
    group: Codes,
    sample_ids: Column,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> Codes:
    """The split of every row: what is open is drawn.

    A data set without val (or test) gives some of its training images; a split that it has stays
    as it is. Fractions are of the whole training pool, in [0, 1).
    """
    has = set(np.unique(split).tolist())
    draws = _draws(val_fraction, test_fraction, has_test=TEST in has)
    full = np.where(split == NONE, TRAIN, split)
    for number, (drawn, fraction) in enumerate(draws):
        if drawn in has:
            continue
        pool = np.flatnonzero(full == TRAIN)
        moved = draw(
            label[pool],
            group[pool],
            sample_ids.take(pa.array(pool)),
            fraction=fraction,
            seed=stable_seed(seed, number, SPLITS[drawn]),
        )
        full[pool[moved]] = drawn
    return full


def _draws(val_fraction: float, test_fraction: float, *, has_test: bool) -> list[_Draw]:
    """What is drawn from the training pool, in this order."""
    if has_test:
        return [_Draw(VAL, val_fraction)]
    # test is drawn first, so val's share is of what is left of the whole
    rest = 1 - test_fraction
    test = _Draw(TEST, test_fraction)
    val = _Draw(VAL, val_fraction / rest)
    return [test, val]


def conflicts(label: Ints, content: Codes) -> Ints:
    """For each row another one with its bytes and another label; NONE if there is none.

    `content` has equal numbers for equal bytes. The other row is the first with its bytes, or the
    first whose label is not the first one's.
    """
    first = _first_rows(content, np.arange(len(content)))
    firsts = first[content]
    differs = label != label[firsts]
    second = _first_rows(content, np.flatnonzero(differs))
    return np.where(differs, firsts, second[content])


def _first_rows(content: Codes, rows: Ints) -> Ints:
    """The first of some ascending rows that has each content; NONE where none has it."""
    first = np.full(content.max(initial=NONE) + 1, NONE, np.int64)
    # of equal places numpy keeps what is assigned last
    backwards = rows[::-1]
    first[content[backwards]] = backwards
    return first


def duplicates(split: Codes, content: Codes) -> Codes:
    """For each row NONE, or the split that keeps its bytes: an earlier one of OWNERS."""
    owner = np.full(content.max(initial=NONE) + 1, NONE, np.int32)
    # the least first, so that the greatest has the last word
    for name in reversed(OWNERS):
        owner[content[split == name]] = name
    owners = owner[content]
    return np.where(owners == split, NONE, owners)
