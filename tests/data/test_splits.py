from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.ids import stable_seed
from discl_ray.core.splits import MIN_IMAGES
from discl_ray.data.splits import (
    codes_of,
    conflicts,
    draw,
    duplicates,
    fill_splits,
    long_tail,
    long_tail_sizes,
    order_of,
    split_codes,
    split_names,
)

labels = st.lists(st.integers(0, 4), min_size=1, max_size=120)


def texts(values):
    return pa.array(values, pa.string())


def ids_of(label):
    return texts([f"s{i}" for i in range(len(label))])


def filled(label, *, split=None, group=None, seed=0, val=0.1, test=0.2):
    none = [None] * len(label)
    found = fill_splits(
        split_codes(texts(split or none)),
        np.array(label),
        codes_of(texts(group or none)),
        ids_of(label),
        val_fraction=val,
        test_fraction=test,
        seed=seed,
    )
    return np.array(split_names(found).to_pylist(), object)


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
    keep = long_tail(np.array(label), ids_of(label), imbalance=imbalance, head=None, seed=seed)
    before, after = Counter(label), Counter(np.array(label)[keep].tolist())
    assert set(after) == set(before)
    assert all(after[c] <= before[c] for c in before)
    assert max(after.values()) == max(before.values())


def test_equal_bytes_in_two_splits_are_found_and_test_keeps_its_own():
    split = split_codes(texts(["train", "train", "val", "test", "val", "train"]))
    owners = duplicates(split, codes_of(texts("ababcd")))
    assert split_names(owners).to_pylist() == ["val", "test", None, None, None, None]


def test_equal_bytes_under_two_labels_name_each_other():
    label = np.array([0, 1, 1, 0, 2])
    assert conflicts(label, codes_of(texts("aabbc"))).tolist() == [1, 0, 3, 2, -1]
    same = codes_of(texts("aabac"))
    assert conflicts(np.array([0, 0, 1, 2, 1]), same).tolist() == [3, 3, -1, 0, -1]


# what the columns must agree with, row by row: every split of earlier versions was drawn so


def row_order(count, seed):
    return sorted(range(count), key=lambda i: stable_seed(seed, f"s{i}"))


def row_draw(label, group, fraction, seed):
    """Rows that move, in sets: whole groups in a random order, or the first of every class."""
    order = row_order(len(label), seed)
    if all(name is None for name in group):
        moved = set()
        for c in set(label):
            mine = [i for i in order if label[i] == c]
            moved.update(mine[: max(0, min(round(len(mine) * fraction), len(mine) - MIN_IMAGES))])
        return moved
    left = np.bincount(label)
    wanted, got = left * fraction, np.zeros(len(left))
    members = {}
    for i in order:
        members.setdefault((i,) if group[i] is None else group[i], []).append(i)
    moved = set()
    for rows in members.values():
        counts = np.bincount(np.array(label)[rows], minlength=len(left))
        has = counts > 0
        before = np.abs(wanted - got)[has].sum()
        after = np.abs(wanted - got - counts)[has].sum()
        if after < before and (left[has] - counts[has] >= MIN_IMAGES).all():
            moved.update(rows)
            got, left = got + counts, left - counts
    return moved


@given(
    label=st.lists(st.integers(0, 12), min_size=1, max_size=120),
    names=st.sampled_from(["", "-abcde", "abc", "--------ab"]),
    fraction=st.floats(0.01, 0.9),
    seed=st.integers(0, 9),
)
def test_columns_draw_what_rows_drew(label, names, fraction, seed):
    rng = np.random.default_rng(seed)
    group = rng.choice(list(names or "-"), len(label)).tolist()
    group = [None if name == "-" else name for name in group]
    found = draw(
        np.array(label), codes_of(texts(group)), ids_of(label), fraction=fraction, seed=seed
    )
    assert set(np.flatnonzero(found).tolist()) == row_draw(label, group, fraction, seed)
    assert order_of(ids_of(label), seed).tolist() == row_order(len(label), seed)


@given(label=labels, seed=st.integers(0, 9), imbalance=st.floats(1, 90))
def test_columns_keep_the_long_tail_that_rows_kept(label, seed, imbalance):
    falling = sorted(set(label), key=lambda c: (-label.count(c), c))
    sizes = long_tail_sizes(max(map(label.count, label)), imbalance, len(falling))
    order = row_order(len(label), seed)
    kept = set()
    for c, size in zip(falling, sizes, strict=True):
        kept.update([i for i in order if label[i] == c][: max(size, 1)])
    keep = long_tail(np.array(label), ids_of(label), imbalance=imbalance, head=None, seed=seed)
    assert set(np.flatnonzero(keep).tolist()) == kept


@given(data=st.data(), label=labels)
def test_columns_find_the_copies_that_rows_found(data, label):
    def drawn(values):
        return data.draw(
            st.lists(st.sampled_from(values), min_size=len(label), max_size=len(label))
        )

    content, split = drawn("abcdefgh"), drawn(["train", "val", "test"])
    first = {}
    for row, digest in enumerate(content):
        first.setdefault(digest, {}).setdefault(label[row], row)
    others = [
        next((row for c, row in first[digest].items() if c != own), -1)
        for digest, own in zip(content, label, strict=True)
    ]
    assert conflicts(np.array(label), codes_of(texts(content))).tolist() == others
    keepers = [
        min(
            (s for s, c in zip(split, content, strict=True) if c == digest),
            key="test val train".find,
        )
        for digest in content
    ]
    owners = duplicates(split_codes(texts(split)), codes_of(texts(content)))
    assert split_names(owners).to_pylist() == [
        None if keeper == own else keeper for keeper, own in zip(keepers, split, strict=True)
    ]
