"""Real images are read from bytes or by path; what cannot be read is named with a reason."""

import numpy as np
import pyarrow as pa
import pytest

from discl_ray.core.images import encode_image
from discl_ray.core.schema import IMAGE
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


def test_only_wanted_sources_are_read_and_each_failure_has_a_reason(tmp_path):
    images = {
        "good": {"bytes": DATA, "path": None},
        "text": {"bytes": b"text", "path": None},
        "gone": {"bytes": None, "path": str(tmp_path / "gone.png")},
        "other": {"bytes": DATA, "path": None},
    }
    run = Store.at(tmp_path)
    table = pa.table({"sample_id": list(images), "image": pa.array(list(images.values()), IMAGE)})
    run.write_table("sources.parquet", table)
    pixels, broken = read_sources(run, pa.array(["good", "text", "gone"]))
    assert list(pixels) == ["good"]
    np.testing.assert_array_equal(pixels["good"], PIXELS)
    assert broken == {"text": "not_an_image", "gone": "unreadable"}
