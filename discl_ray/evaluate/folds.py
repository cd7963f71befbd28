"""Which fold each training image is held out in: groups and copies stay together, classes are even.

Pure numpy, scipy and scikit-learn; no torch, no Ray.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from discl_ray.errors import DataError

NO_FOLD = -1
"""The fold of val images."""

BUNDLES = 8
"""Ungrouped images are bucketed into `BUNDLES * folds` pseudo-groups before stratification."""

Folds = Mapping[str, int]
"""Training image -> the fold it is held out in."""

Integers = NDArray[np.int64]
Strings = NDArray[np.object_]


def folds_of(train: pa.Table, *, folds: int, seed: int) -> dict[str, int]:
    """The fold of each training image, by `sample_id`, from the SAMPLES rows of the train split.

    Raises DataError if there are fewer groups than folds.
    """
    labels = train["label"].to_numpy()
    label = labels.astype(np.int64)
    group = _strings(train, "group")
    sha256 = _strings(train, "sha256")
    fold = assign_folds(label, group, sha256, folds=folds, seed=seed)
    ids = train["sample_id"].to_pylist()
    numbers = fold.tolist()
    return dict(zip(ids, numbers, strict=True))


def _strings(rows: pa.Table, column: str) -> Strings:
    """A column of text, shape (N,); None where a row has none."""
    values = rows[column].to_pylist()
    return np.array(values, object)


def unseen_labels(train: pa.Table, folds: Folds) -> list[int]:
    """Labels all of whose training images are in one fold: their classifier never saw the class."""
    folds_of_label: dict[int, set[int]] = {}
    labelled = train.select(["sample_id", "label"])
    for row in labelled.to_pylist():
        fold = folds[row["sample_id"]]
        found = folds_of_label.setdefault(row["label"], set())
        found.add(fold)
    unseen = [label for label, found in folds_of_label.items() if len(found) == 1]
    return sorted(unseen)


def fold_of(rows: pa.Table, folds: Folds) -> Integers:
    """The fold of each row, shape (N,); NO_FOLD for rows that are in none."""
    ids = rows["sample_id"].to_pylist()
    found = [folds.get(sample_id, NO_FOLD) for sample_id in ids]
    return np.array(found, np.int64)


def assign_folds(
    label: Integers, group: Strings, sha256: Strings, *, folds: int, seed: int
) -> Integers:
    """The fold, 0 to folds - 1, of every row; all arrays have shape (N,).

    Rows of one group (None is no group) and rows with equal bytes share a fold; within that, each
    class is spread as evenly as possible.

    Raises DataError if there are fewer inseparable parts than folds.
    """
    part = _inseparable(group, sha256)
    distinct = np.unique(part)
    parts = len(distinct)
    if parts < folds:
        raise DataError(
            f"hard.folds = {folds}: the training images are {parts} parts that may not be divided "
            "(by group, or as copies); lower hard.folds, or set hard.method=zero_shot"
        )
    rng = np.random.default_rng([seed, 0xF0])
    numbers = np.arange(BUNDLES * folds)
    _bundle_singles(part, label, parts + numbers, rng)
    largest = np.bincount(label).max()
    if largest < folds:  # too few of every class to stratify
        part = _numbered(part)
        count = part.max() + 1
        shuffled = rng.permutation(count)
        return shuffled[part] % folds
    return _stratified(label, part, folds, seed)


def _numbered(values: NDArray[np.generic]) -> Integers:
    """Equal values as equal numbers from 0 up, without gaps, shape (N,)."""
    _, numbers = np.unique(values, return_inverse=True)
    return numbers.astype(np.int64)


def _inseparable(group: Strings, sha256: Strings) -> Integers:
    """Numbers the connected components of rows that share a group or bytes, shape (N,)."""
    count = len(sha256)
    has_group = [name is not None for name in group]
    grouped = np.flatnonzero(has_group)
    names = group[grouped].astype(str)
    hashes = sha256.astype(str)
    # nodes of the graph are rows, then groups, then bytes; each row has an edge to its own
    first_group = count
    first_bytes = first_group + len(grouped)
    size = first_bytes + count
    rows = np.arange(count)
    starts = np.concatenate([grouped, rows])
    group_nodes = first_group + _numbered(names)
    byte_nodes = first_bytes + _numbered(hashes)
    ends = np.concatenate([group_nodes, byte_nodes])
    weights = np.ones(len(ends), bool)
    places = (starts, ends)
    edges = coo_array((weights, places), shape=(size, size))
    _, component = connected_components(edges, directed=False)
    return _numbered(component[:count])


def _bundle_singles(
    part: Integers, label: Integers, bundles: Integers, rng: np.random.Generator
) -> None:
    """Puts rows that are a part of their own into one of the bundles, in place.

    StratifiedGroupKFold weighs every group against every fold, which a million groups of one row
    would make slow. Dealt out class by class, the bundles have nearly equal mixes of classes.
    """
    size = np.bincount(part)[part]
    single = np.flatnonzero(size == 1)
    single = rng.permutation(single)
    order = np.argsort(label[single], kind="stable")
    by_class = single[order]
    part[by_class] = np.resize(bundles, len(by_class))


def _stratified(label: Integers, part: Integers, folds: int, seed: int) -> Integers:
    """The fold of every row by scikit-learn: parts stay whole, classes are even."""
    fold = np.empty(len(label), np.int64)
    random_state = seed % 2**32  # numpy's RandomState takes no more bits
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer rows than folds
        splits = splitter.split(label, label, part)
        for number, (_, held_out) in enumerate(splits):
            fold[held_out] = number
    return fold
