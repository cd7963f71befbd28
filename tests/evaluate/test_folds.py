"""Folds: what belongs together stays together, classes are even, and large tables take seconds."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discl_ray.errors import DataError
from discl_ray.evaluate.folds import NO_FOLD, assign_folds, fold_of, folds_of, unseen_labels


def samples(labels, groups):
    """SAMPLES rows, as far as folds look at them."""
    ids = [f"s{number}" for number in range(len(labels))]
    return pa.table({"sample_id": ids, "label": labels, "group": groups, "sha256": ids})


def test_folds_are_by_sample_and_rows_without_one_are_in_no_fold():
    train = samples([0, 1] * 6, ["a", "a", *[None] * 10])
    folds = folds_of(train, folds=3, seed=0)
    assert set(folds.values()) == {0, 1, 2}
    assert folds["s0"] == folds["s1"]
    rows = pa.table({"sample_id": ["s5", "a val image", "s0"]})
    assert fold_of(rows, folds).tolist() == [folds["s5"], NO_FOLD, folds["s0"]]


def test_a_class_that_lies_in_one_fold_is_never_seen_by_its_classifier():
    train = samples([0, 0, 2, 2, 1], [None] * 5)
    folds = {"s0": 0, "s1": 1, "s2": 1, "s3": 1, "s4": 0}
    assert unseen_labels(train, folds) == [1, 2]


def parts_of(group, sha256):
    """Rows that may not be divided, found the slow way."""
    part = list(range(len(group)))
    for _ in part:
        for i in range(len(part)):
            for j in range(len(part)):
                if sha256[i] == sha256[j] or (group[i] is not None and group[i] == group[j]):
                    part[i] = part[j] = min(part[i], part[j])
    return part


@settings(max_examples=80)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from([None, None, "g", "h", "i", "j"]), st.integers(0, 12)
        ),
        min_size=1,
        max_size=24,
    ),
    folds=st.integers(2, 5),
    seed=st.integers(0, 3),
)
def test_what_belongs_together_is_in_one_fold_and_no_fold_is_empty(rows, folds, seed):
    label = np.array([c for c, _, _ in rows])
    group = np.array([g for _, g, _ in rows], object)
    sha256 = np.array([f"hash {h}" for _, _, h in rows], object)
    part = parts_of(group, sha256)
    if len(set(part)) < folds:
        with pytest.raises(DataError, match=rf"are {len(set(part))} parts that may not be divided"):
            assign_folds(label, group, sha256, folds=folds, seed=seed)
        return
    fold = assign_folds(label, group, sha256, folds=folds, seed=seed)
    assert set(fold.tolist()) == set(range(folds))
    together = defaultdict(set)
    for p, f in zip(part, fold.tolist(), strict=True):
        together[p].add(f)
    assert all(len(f) == 1 for f in together.values())
    np.testing.assert_array_equal(fold, assign_folds(label, group, sha256, folds=folds, seed=seed))


def test_a_group_that_is_called_like_a_hash_ties_nothing():
    group = np.array(["a", "b", None, None], object)
    fold = assign_folds(
        np.zeros(4, int), group, np.array(["w", "x", "a", "b"], object), folds=4, seed=0
    )
    assert sorted(fold.tolist()) == [0, 1, 2, 3]


def test_classes_are_even_over_folds_without_groups_and_nearly_so_with_them():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(6), (200, 100, 50, 25, 11, 3))
    sha256 = np.array([f"{i}" for i in range(len(label))], object)
    alone = assign_folds(label, np.full(len(label), None), sha256, folds=5, seed=1)
    for c in range(6):
        counts = np.bincount(alone[label == c], minlength=5)
        assert counts.max() - counts.min() <= 2
    group = np.array([f"{c}-{rng.integers(20)}" for c in label], object)
    grouped = assign_folds(label, group, sha256, folds=5, seed=1)
    for c in range(3):
        share = np.bincount(grouped[label == c], minlength=5) / (label == c).sum()
        assert share.max() < 0.3
    other = assign_folds(label, np.full(len(label), None), sha256, folds=5, seed=2)
    assert (other != alone).any()


def test_a_hundred_thousand_rows_are_folded_in_seconds():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 1000, 100_000)
    group = np.array([None] * 99_000 + [f"{i // 4}" for i in range(1000)], object)
    fold = assign_folds(
        label, group, np.array([f"{i}" for i in range(len(label))], object), folds=5, seed=0
    )
    assert np.ptp(np.bincount(fold)) < 2000
