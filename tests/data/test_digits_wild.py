from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discl_ray.core.images import decode_image
from discl_ray.data.config import DigitsWildConfig
from discl_ray.data.digits_wild import CLASSES, EMPTY, digits_wild
from discl_ray.embedded import digits
from discl_ray.embedded.digits import DEV_BLOCK, NAMES, TASK_BLOCKS, scans, scans_of
from discl_ray.embedded.places import PLACES, place, place_look

seeds = st.integers(0, 4)
Row = dict[str, object]


@cache
def rows_of(seed: int) -> list[Row]:
    return digits_wild(DigitsWildConfig(), seed).table.to_pylist()


def subject(row: Row) -> str:
    """Which scan, or which empty, a row shows."""
    return str(row["sample_id"]).partition("-place-")[0]


def scan_of(row: Row) -> digits.Scan | None:
    return scans()[int(subject(row)[6:])] if row["class_key"] != EMPTY else None


def in_split(seed: int, split: str, domain: str | None = None) -> list[Row]:
    return [r for r in rows_of(seed) if r["split"] == split and domain in (None, r["domain"])]


@settings(max_examples=5)
@given(seed=seeds)
def test_no_writer_and_no_scan_is_in_two_splits(seed: int) -> None:
    blocks = {
        split: {scan.block for row in in_split(seed, split) if (scan := scan_of(row))}
        for split in ("train", "val", "test")
    }
    assert blocks["val"] == {DEV_BLOCK}
    assert len(blocks["train"]) == len(blocks["test"]) == 3
    assert blocks["train"] | blocks["test"] == set(TASK_BLOCKS)
    seen = Counter(
        s
        for split in ("train", "val", "test")
        for s in {subject(row) for row in in_split(seed, split)}
    )
    assert {s for s in seen if s.startswith("digit")} <= {s for s, n in seen.items() if n == 1}


@settings(max_examples=5)
@given(seed=seeds)
def test_a_place_is_either_trained_in_or_away(seed: int) -> None:
    number = lambda row: int(str(row["group"]).removeprefix("place-"))  # noqa: E731
    assert {number(r) for r in rows_of(seed) if r["split"] == "train"} == set(PLACES["train"])
    assert {number(r) for r in rows_of(seed) if r["domain"] == "id"} == set(PLACES["train"])
    for split in ("val", "test"):
        assert {number(r) for r in in_split(seed, split, "ood")} <= set(PLACES[split])
    assert (
        sum(map(len, PLACES.values()))
        == len({n for numbers in PLACES.values() for n in numbers})
        == 44
    )
    assert all(str(r["sample_id"]).endswith(str(r["group"])) for r in rows_of(seed))


@settings(max_examples=5)
@given(seed=seeds)
def test_every_val_and_test_digit_is_seen_once_in_either_domain(seed: int) -> None:
    for split in ("val", "test"):
        here, away = in_split(seed, split, "id"), in_split(seed, split, "ood")
        assert [(subject(r), r["class_key"]) for r in here] == [
            (subject(r), r["class_key"]) for r in away
        ]
        assert len({subject(r) for r in here}) == len(here)
    assert {s.index for r in in_split(seed, "val", "id") if (s := scan_of(r))} == {
        s.index for s in scans_of((DEV_BLOCK,))
    }


@settings(max_examples=5)
@given(seed=seeds)
def test_rows_are_labelled_by_their_scans_and_ids_are_unique(seed: int) -> None:
    rows = rows_of(seed)
    assert len({r["sample_id"] for r in rows}) == len(rows)
    assert len({r["bytes"] for r in rows}) == len(rows)
    for row in rows:
        scan = scan_of(row)
        assert row["class_key"] == (EMPTY if scan is None else NAMES[scan.label])


@settings(max_examples=5)
@given(seed=seeds)
def test_train_is_skewed_and_every_split_has_every_class(seed: int) -> None:
    counts = Counter(r["class_key"] for r in in_split(seed, "train"))
    assert 600 <= counts.total() <= 1000
    assert 0.1 <= counts[EMPTY] / counts.total() <= 0.35
    names = [counts[name] for name in NAMES]
    assert max(names) >= 3 * min(names) > 0
    for split, domain in (("val", "id"), ("val", "ood"), ("test", "id"), ("test", "ood")):
        rows = in_split(seed, split, domain)
        assert {r["class_key"] for r in rows} == set(CLASSES)
        assert sum(r["class_key"] == EMPTY for r in rows) == pytest.approx(0.2 * len(rows), abs=1)
    mixes = [
        Counter(r["class_key"] for r in in_split(seed, "train") if r["group"] == f"place-{n:02d}")
        for n in PLACES["train"]
    ]
    assert (
        len({mix.most_common(1)[0][0] for mix in mixes}) >= 4
    )  # places differ in what is common there


def test_a_seed_decides_everything_and_an_image_is_its_scan_and_place() -> None:
    first, again = (digits_wild(DigitsWildConfig(), 1) for _ in range(2))
    assert first.table.equals(again.table)
    assert first.stamp == again.stamp != digits_wild(DigitsWildConfig(), 2).stamp
    assert list(first.classes or ()) == list(CLASSES)
    pixels: dict[object, object] = {}
    for seed in range(3):
        for row in rows_of(seed):
            assert pixels.setdefault(row["sample_id"], row["bytes"]) == row["bytes"]


def test_per_place_is_the_average_size_of_a_place() -> None:
    sizes = [
        len(
            [
                r
                for r in digits_wild(DigitsWildConfig(per_place=n), 0).table.to_pylist()
                if r["split"] == "train"
            ]
        )
        for n in (8, 40)
    ]
    assert sizes[0] == pytest.approx(24 * 8, rel=0.2)
    assert sizes[1] == pytest.approx(24 * 40, rel=0.2)


def test_images_are_32_pixels_wide_and_places_differ_more_than_their_images() -> None:
    row = rows_of(0)[0]
    data = row["bytes"]
    assert isinstance(data, bytes)
    assert data.startswith(b"\x89PNG")
    assert decode_image(data).shape == (32, 32, 3)
    empties = np.array(
        [
            [place_look(None, place(n), np.random.default_rng([n, i])) for i in range(4)]
            for n in range(44)
        ],
        float,
    )
    within = np.abs(empties - empties.mean(1, keepdims=True)).mean((1, 2, 3, 4))
    between = (
        np.abs(empties.mean(1)[:, None] - empties.mean(1)[None]).mean((2, 3, 4)) + np.eye(44) * 255
    )
    assert np.median(between.min(1)) > np.median(within)


def test_a_digit_changes_what_a_place_shows_by_more_than_its_noise() -> None:
    scan = scans_of((DEV_BLOCK,))[0]
    for number in range(44):
        where = place(number)
        shown, empty = (
            place_look(p, where, np.random.default_rng(0)).astype(float)
            for p in (scan.pixels, None)
        )
        assert np.abs(shown - empty).max() > 2 * 255 * where.noise


def test_places_are_fixed_and_there_are_44() -> None:
    assert np.array_equal(place(5).scene, place.__wrapped__(5).scene)
    with pytest.raises(ValueError, match="place 44: there is none; places are 0 to 43"):
        place(44)


def test_places_are_dark_and_the_web_is_not() -> None:
    web = digits.web_images(200, seed=5).images
    dark = [place_look(None, place(n), np.random.default_rng(n)).mean() for n in range(44)]
    assert (web.max((1, 2, 3)) > 150).mean() > 0.95
    assert np.median(dark) < 0.6 * np.median(web.mean((1, 2, 3)))
