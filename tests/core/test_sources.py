"""Real images are read from bytes or by path; what cannot be read is named with a reason."""

import numpy as np
import pyarrow as pa
import pytest

from discl_ray.core.ids import sha256
from discl_ray.core.images import encode_image
from discl_ray.core.schema import IMAGE
from discl_ray.core.shards import Slice
from discl_ray.core.sources import image_bytes, image_pixels, read_sources
from discl_ray.core.storage import Store
from discl_ray.errors import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
DATA = encode_image(PIXELS, "png")


def test_bytes_and_paths_give_the_same_image(tmp_path):
    (tmp_path / "a.png").write_bytes(DATA)
    by_path = {"bytes": None, "path": str(tmp_path / "a.png")}
    for image in ({"bytes": DATA, "path": None}, by_path):
        assert image_bytes(image) == DATA
        np.testing.assert_array_equal(image_pixels(image), PIXELS)
    with pytest.raises(OSError, match=r"b\.png"):
        image_bytes({"bytes": None, "path": str(tmp_path / "b.png")})
    with pytest.raises(ImageError):
        image_pixels({"bytes": b"text", "path": None})
    with pytest.raises(OSError, match="neither bytes nor a path"):
        image_bytes({"bytes": None, "path": None})


def test_only_wanted_sources_are_read_and_each_failure_has_a_reason(tmp_path):
    images = {
        "good": {"bytes": DATA, "path": None},
        "text": {"bytes": b"text", "path": None},
        "gone": {"bytes": None, "path": str(tmp_path / "gone.png")},
        "other": {"bytes": DATA, "path": None},
    }
    run = Store.at(tmp_path)
    table = pa.table({"sample_id": list(images), "image": pa.array(list(images.values()), IMAGE)})
    run.write_table("sources.parquet", table)  # as an earlier version laid them out
    run.write_table("sources/0.parquet", table)
    for place in (None, Slice("sources/0.parquet", 0, 4)):
        pixels, broken = read_sources(run, dict.fromkeys(["good", "text", "gone"]), place)
        assert list(pixels) == ["good"]
        np.testing.assert_array_equal(pixels["good"], PIXELS)
        assert broken == {"text": "not_an_image", "gone": "unreadable"}
    assert read_sources(run, dict.fromkeys(images), Slice("sources/0.parquet", 1, 2))[0] == {}


def test_an_image_that_was_exchanged_has_a_reason_and_no_pixels(tmp_path):
    (tmp_path / "a.png").write_bytes(DATA)
    table = pa.table(
        {
            "sample_id": ["a", "b"],
            "image": pa.array([{"path": str(tmp_path / "a.png")}, {"bytes": DATA}], IMAGE),
        }
    )
    run = Store.at(tmp_path)
    run.write_table("sources/0.parquet", table)
    place = Slice("sources/0.parquet", 0, 2)
    planned = dict.fromkeys(["a", "b"], sha256(DATA))
    assert list(read_sources(run, planned, place)[0]) == ["a", "b"]
    (tmp_path / "a.png").write_bytes(encode_image(255 - PIXELS, "png"))
    pixels, broken = read_sources(run, planned, place)
    assert list(pixels) == ["b"]
    assert broken == {"a": "changed"}
