from collections import Counter

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from discl_ray.core.images import decode_image
from discl_ray.core.settings import identity
from discl_ray.data.config import DataConfig, DigitsLTConfig
from discl_ray.data.digits_lt import by_digit, class_sizes, digits_lt, draw_blocks
from discl_ray.embedded import digits


def test_the_task_takes_every_look_and_shows_the_same_scans_in_it() -> None:
    tables = {
        look: digits_lt(DigitsLTConfig(look=look), 0).table.to_pylist()
        for look in ("ochre", "sepia", "web")
    }
    for look, rows in tables.items():
        assert {row["domain"] for row in rows} == {look}
        assert [(r["sample_id"], r["split"]) for r in rows] == [
            (r["sample_id"], r["split"]) for r in tables["ochre"]
        ]
        scan = digits.scans()[int(str(rows[0]["sample_id"])[6:])]
        assert np.array_equal(decode_image(rows[0]["bytes"]), digits.render(scan, look))
    assert set(digits.LOOKS) == set(tables)
    with pytest.raises(ValidationError):
        TypeAdapter(DataConfig).validate_python({"name": "digits_lt", "look": "moss"})


def test_one_more_look_changes_no_runs_identity() -> None:
    expected = {
        "name": "digits_lt",
        "look": "ochre",
        "head": 36,
        "tail": 2,
        "few_below": 6,
        "many_above": 15,
    }
    assert identity(DigitsLTConfig()) == expected


def counts_of(listing, split):
    rows = listing.table.to_pylist()
    return Counter(row["class_key"] for row in rows if row["split"] == split)


def test_class_sizes_fall_exponentially_from_head_to_tail():
    sizes = class_sizes(36, 2, 10)
    assert (sizes[0], sizes[-1], len(sizes)) == (36, 2, 10)
    assert sizes == sorted(sizes, reverse=True)
    ratios = np.array(sizes[:-1]) / np.array(sizes[1:])
    assert np.abs(np.log(ratios) - np.log(18) / 9).max() < 0.25


@pytest.mark.parametrize("seed", [0, 1])
def test_train_has_the_long_tail_and_val_and_test_are_balanced(seed):
    config = DigitsLTConfig()
    listing = digits_lt(config, seed)
    train = counts_of(listing, "train")
    assert sorted(train.values(), reverse=True) == class_sizes(config.head, config.tail, 10)
    for split in ("val", "test"):
        assert len(set(counts_of(listing, split).values())) == 1
        assert set(counts_of(listing, split)) == set(digits.NAMES)


def test_no_writer_is_in_two_splits():
    rows = digits_lt(DigitsLTConfig(), 3).table.to_pylist()
    groups = {
        split: {r["group"] for r in rows if r["split"] == split}
        for split in ("train", "val", "test")
    }
    assert groups["val"] == {f"writers-{digits.DEV_BLOCK:02d}"}
    assert not groups["train"] & groups["test"]
    ids = [row["sample_id"] for row in rows]
    assert len(set(ids)) == len(ids)


def test_the_tasks_blocks_are_halved_at_random():
    drawn = {draw_blocks(np.random.default_rng(seed)) for seed in range(8)}
    assert len(drawn) > 1
    for train, test in drawn:
        assert len(train) == len(test) == 3
        assert {*train, *test} == set(digits.TASK_BLOCKS)


def test_scans_by_digit_keep_their_order():
    pool = digits.scans()[:40]
    classes = by_digit(pool)
    assert sum(map(len, classes)) == 40
    for label, members in enumerate(classes):
        assert members == [scan for scan in pool if scan.label == label]
