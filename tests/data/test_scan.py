import pyarrow as pa

from discl_ray.core.ids import sha256
from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.scan import LONGEST_DETAIL, SCANNED, scan
from discl_ray.errors import ImageError
from tests.support.samples import picture


def scanned(*images, **options):
    rows = pa.table({"sample_id": [f"s{i}" for i in range(len(images))]})
    return scan(rows, Store.at("."), lambda _root, _rows: iter(images), **options)


def test_an_image_has_its_upright_size_and_the_hash_of_its_bytes():
    data = encode_image(picture(1, side=20), "png")
    found = scanned(data)
    assert found.schema.equals(SCANNED)
    (row,) = found.to_pylist()
    height, width, _ = picture(1, side=20).shape
    assert (row["sample_id"], row["height"], row["width"]) == ("s0", height, width)
    assert (row["sha256"], row["reason"]) == (sha256(data), None)


def test_what_cannot_be_used_is_a_row_with_a_reason_in_its_place():
    good = encode_image(picture(2), "png")
    found = scanned(b"no image", good, ImageError("missing", "x" * 1000)).to_pylist()
    assert [row["reason"] for row in found] == ["not_an_image", None, "missing"]
    assert len(found[2]["detail"]) == LONGEST_DETAIL
    assert found[0]["sha256"] is None


def test_larger_images_than_allowed_are_rejected():
    data = encode_image(picture(3, side=40), "png")
    (row,) = scanned(data, limit=100).to_pylist()
    assert row["reason"] == "too_large"
