from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.splits import MIN_IMAGES
from discl_ray.data.splits import conflicts, duplicates, fill_splits, long_tail, long_tail_sizes

labels = st.lists(st.integers(0, 4), min_size=1, max_size=120)


def filled(label, *, split=None, group=None, seed=0, val=0.1, test=0.2):
    n = len(label)
    return fill_splits(
        np.array(split if split is not None else [None] * n, object),
        np.array(label),
        np.array(group if group is not None else [None] * n, object),
        [f"s{i}" for i in range(n)],
        val_fraction=val,
        test_fraction=test,
        seed=seed,
    )


@pytest.mark.parametrize(("imbalance", "total"), [(100, 10_847), (50, 12_608)])
def test_cifar_100_lt_has_its_published_sizes(imbalance, total):
    sizes = long_tail_sizes(500, imbalance, 100)
    assert sum(sizes) == total
    assert (sizes[0], sizes[-1]) == (500, 500 // imbalance)


@given(label=labels, seed=st.integers(0, 5))
def test_drawn_splits_are_stratified_and_leave_every_class_enough_to_train_on(label, seed):
    split = filled(label, seed=seed)
    assert set(split) <= {"train", "val", "test"}
    for c, n in Counter(label).items():
        mine = Counter(s for s, d in zip(split, label, strict=True) if d == c)
        assert mine["train"] >= min(n, MIN_IMAGES)
        assert abs(mine["test"] - 0.2 * n) <= max(1, 0.2 * n - (n - MIN_IMAGES))
        assert abs(mine["val"] - 0.1 * n) <= 2


@given(label=labels, seed=st.integers(0, 5), data=st.data())
def test_a_group_is_in_one_split(label, seed, data):
    group = data.draw(
        st.lists(st.sampled_from("abcdefghij"), min_size=len(label), max_size=len(label))
    )
    split = filled(label, group=group, seed=seed, val=0.3, test=0.3)
    assert all(
        len({s for s, g in zip(split, group, strict=True) if g == name}) == 1 for name in set(group)
    )
    for c, n in Counter(label).items():
        assert sum(s == "train" and d == c for s, d in zip(split, label, strict=True)) >= min(
            n, MIN_IMAGES
        )


def test_groups_come_near_the_share_asked_for():
    rng = np.random.default_rng(0)
    label, group = rng.integers(0, 5, 2000), rng.integers(0, 80, 2000).astype(str).tolist()
    counts = Counter(filled(label, group=group))
    assert 0.15 < counts["test"] / 2000 < 0.25
    assert 0.06 < counts["val"] / 2000 < 0.14


def test_a_split_the_data_set_has_is_left_as_it_is():
    split = ["train"] * 40 + ["test"] * 10
    got = filled([0, 1] * 25, split=split)
    assert [s == "test" for s in got] == [s == "test" for s in split]
    assert Counter(got)["val"] == 4  # a tenth of 40
    everything = ["train"] * 20 + ["val"] * 15 + ["test"] * 15
    assert filled([0] * 50, split=everything).tolist() == everything


def test_an_image_more_moves_hardly_any_other():
    label = [i % 3 for i in range(300)]
    before, after = filled(label), filled([*label, 0])
    assert sum(a != b for a, b in zip(before, after[:300], strict=True)) <= 2
    assert filled(label).tolist() == before.tolist()
    assert filled(label, seed=1).tolist() != before.tolist()


@given(label=labels, imbalance=st.floats(1, 50), seed=st.integers(0, 3))
def test_a_long_tail_falls_and_keeps_every_class(label, imbalance, seed):
    ids = [f"s{i}" for i in range(len(label))]
    keep = long_tail(np.array(label), ids, imbalance=imbalance, head=None, seed=seed)
    before, after = Counter(label), Counter(np.array(label)[keep].tolist())
    assert set(after) == set(before)
    assert all(after[c] <= before[c] for c in before)
    assert max(after.values()) == max(before.values())


def test_equal_bytes_in_two_splits_are_found_and_test_keeps_its_own():
    split = np.array(["train", "train", "val", "test", "val", "train"], object)
    sha = np.array(["a", "b", "a", "b", "c", "d"], object)
    assert duplicates(split, sha).tolist() == ["val", "test", None, None, None, None]


def test_equal_bytes_under_two_labels_name_each_other():
    label = np.array([0, 1, 1, 0, 2])
    sha = np.array(["a", "a", "b", "b", "c"], object)
    assert conflicts(label, sha).tolist() == [1, 0, 3, 2, -1]
    same = np.array(["a", "a", "b", "a", "c"], object)
    assert conflicts(np.array([0, 0, 1, 2, 1]), same).tolist() == [3, 3, -1, 0, -1]
