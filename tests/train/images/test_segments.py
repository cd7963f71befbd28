import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from discl_ray.core.storage import Store
from discl_ray.errors import DataError, IntegrityError
from discl_ray.train.images.segments import (
    ENCODED_ROWS,
    READERS,
    ROWS,
    SEGMENT_BYTES,
    SEGMENT_ROWS,
    DecodedSegments,
    load_pixels,
    map_segment,
    rows_of_segment,
    write_segment,
)

SIDE = 6


def png(seed: int, width: int = 9) -> dict[str, object]:
    """An image value of noise, SIDE + 1 pixels high."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE + 1, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def rows(count: int) -> pa.Table:
    plain = {"label": 1, "lam_pct": 50, "role": "train", "hard": False, "domain": None}
    return pa.Table.from_pylist([{**plain, "sample_id": f"s{i}"} for i in range(count)], ROWS)


@given(st.data())
def test_many_segments_are_one_array(data):
    side = data.draw(st.sampled_from([1, 3, 8]))
    counts = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=6))
    total = sum(counts)
    whole = np.random.default_rng(0).integers(0, 256, (total, side, side, 3), dtype=np.uint8)
    parts = [part.copy() for part in np.split(whole, np.cumsum(counts)[:-1])]
    kind = pa.binary(side * side * 3)
    arrays = [
        pa.FixedSizeBinaryArray.from_buffers(kind, len(p), [None, pa.py_buffer(p)]) for p in parts
    ]
    images = DecodedSegments(arrays, side)
    assert (len(images), images.shape) == (total, whole.shape)
    for rows in data.draw(st.lists(st.lists(st.integers(0, total - 1), max_size=20), max_size=4)):
        assert np.array_equal(images[rows], whole[np.asarray(rows, int)])
    beyond = data.draw(st.sampled_from([-1, -total, total, total + 1, 2**62, -(2**62)]))
    with pytest.raises(IndexError):
        images[[0, beyond]]


@pytest.mark.parametrize("mode", ["decoded", "encoded"])
def test_images_come_back_in_the_order_of_their_rows(tmp_path: Path, mode: str) -> None:
    store, images = Store.at(tmp_path), [png(i, width=7 + i) for i in range(5)]
    forwards = write_segment(store, rows(5), enumerate(images), SIDE, mode)
    backwards = write_segment(store, rows(5), reversed([*enumerate(images)]), SIDE, mode)
    assert forwards == backwards
    assert (forwards.rows, forwards.size) == (5, (tmp_path / forwards.name).stat().st_size)
    batch = map_segment(tmp_path / forwards.name)
    assert batch.column("domain").to_pylist() == [""] * 5
    opened = READERS[mode]([batch.column("content")], SIDE)
    expected = np.stack([load_pixels(image, SIDE) for image in images])
    assert opened.shape == (5, SIDE, SIDE, 3)
    assert np.array_equal(opened[[4, 0, 0]], expected[[4, 0, 0]])
    with pytest.raises(IndexError):
        opened[[5]]


def test_the_largest_square_in_the_middle_is_kept() -> None:
    pixels = np.zeros((SIDE, 3 * SIDE, 3), np.uint8)
    pixels[:, SIDE : 2 * SIDE] = 200
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    assert (load_pixels({"bytes": out.getvalue(), "path": None}, SIDE) == 200).all()


@pytest.mark.parametrize("mode", ["decoded", "encoded"])
def test_an_image_that_became_unreadable_is_named(tmp_path: Path, mode: str) -> None:
    gone = {"bytes": None, "path": str(tmp_path / "gone.png")}
    with pytest.raises(DataError, match=r"gone\.png.*it was readable before"):
        write_segment(Store.at(tmp_path), rows(1), [(0, gone)], SIDE, mode)


def test_segments_are_of_bounded_size() -> None:
    assert rows_of_segment(32, "decoded") == SEGMENT_ROWS
    assert rows_of_segment(224, "decoded") == SEGMENT_BYTES // (224 * 224 * 3)
    assert rows_of_segment(100_000, "decoded") == 1
    assert rows_of_segment(224, "encoded") == ENCODED_ROWS


def test_what_is_no_segment_is_said_with_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / "segments").mkdir()
    file = tmp_path / "segments" / "0.arrow"
    file.write_bytes(b"ARROW1 and nothing more")
    with pytest.raises(IntegrityError, match=f"delete the folder {tmp_path} and run"):
        map_segment(file)
