import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from discl_ray.core.storage import Store
from discl_ray.data.image_cells import cells, extension_of, image_kind, is_text, runs, value_type
from discl_ray.errors import ImageError
from tests.support.parquet import STRUCT, Trap, encoded, listed, read, write


@pytest.mark.parametrize(
    "image",
    [
        pa.array(encoded(3), pa.binary()),
        pa.array(encoded(3), pa.large_binary()),
        pa.array([{"bytes": b, "path": "x.png"} for b in encoded(3)], STRUCT),
        pa.array([{"bytes": b} for b in encoded(3)], pa.struct([("bytes", pa.large_binary())])),
        pa.array(
            [{"path": None, "bytes": b} for b in encoded(3)],
            pa.struct([("path", pa.large_string()), ("bytes", pa.binary())]),
        ),
        pa.array(encoded(3)).dictionary_encode(),
    ],
    ids=lambda image: str(image.type)[:20],
)
def test_images_may_be_stored_in_several_ways(tmp_path, image):
    write(tmp_path / "a.parquet", image=image, label=["a", "b", "c"])
    assert read(listed(tmp_path)) == encoded(3)
    assert read(listed(tmp_path), [2, 0, 0, 1]) == [b"image 2", b"image 0", b"image 0", b"image 1"]


def test_cells_without_bytes_are_files_or_rows_with_a_reason(tmp_path):
    (tmp_path / "base" / "in").mkdir(parents=True)
    (tmp_path / "base" / "in" / "1.png").write_bytes(b"one")
    (tmp_path / "secret.png").write_bytes(b"s")
    os.mkfifo(tmp_path / "base" / "pipe.png")
    found = [
        "in/1.png",
        f"{tmp_path}/base/in/1.png",
        "none.png",
        "../secret.png",
        "/etc/passwd",
        "link.png",
        "pipe.png",
        "in",
    ]
    image = [
        *({"bytes": None, "path": path} for path in found),
        {"bytes": None, "path": None},
        None,
        {"bytes": b"x", "path": "/y"},
    ]
    write(tmp_path / "base" / "a.parquet", image=pa.array(image, STRUCT), label=["a"] * len(image))
    told = [
        "one",
        "one",
        "missing",
        "refused",
        "refused",
        "refused",
        "refused",
        "unreadable",
        "missing",
        "missing",
        "x",
    ]
    strict, open_to_links = (
        listed(tmp_path / "base"),
        listed(tmp_path / "base", allow_links_outside=True),
    )
    (tmp_path / "base" / "link.png").symlink_to("../secret.png")
    assert read(strict) == [t.encode() if t in ("one", "x") else t for t in told]
    assert read(open_to_links)[5] == b"s"


def test_a_column_that_became_pickled_after_listing_is_not_loaded(tmp_path):
    write(tmp_path / "a.parquet", image=[b"x"], label=[1])
    listing = listed(tmp_path)
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectArray

    table = pa.table(
        {"image": ArrowPythonObjectArray.from_objects([Trap(tmp_path / "trace")]), "label": [1]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(listing) == ["unreadable"]
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (pa.binary(), "bytes"),
        (pa.large_binary(), "bytes"),
        (pa.dictionary(pa.int8(), pa.binary()), "bytes"),
        (pa.string(), "path"),
        (pa.string_view(), "path"),
        (STRUCT, "struct"),
        (pa.struct([("bytes", pa.binary()), ("path", pa.null())]), "struct"),
        (pa.struct([("bytes", pa.binary()), ("path", pa.int8())]), None),
        (pa.struct([("path", pa.string())]), None),
        (pa.list_(pa.uint8()), None),
        (pa.int64(), None),
    ],
)
def test_a_column_holds_images_by_its_type(dtype, kind):
    assert image_kind(dtype) == kind


def test_types_of_values_and_of_extensions():
    assert value_type(pa.dictionary(pa.int8(), pa.string())) == pa.string()
    assert is_text(pa.large_string())
    assert not is_text(pa.binary())
    marked = pa.field("x", pa.binary(), metadata={"ARROW:extension:name": "a.b"})
    assert extension_of(marked) == "a.b"
    assert extension_of(pa.field("x", pa.binary())) is None


def test_rows_are_read_in_ascending_runs_of_a_file():
    rows = pa.table({"path": ["a", "a", "a", "b", "a"], "row": [1, 4, 2, 3, 5]})
    assert list(runs(rows)) == [("a", [1, 4]), ("a", [2]), ("b", [3]), ("a", [5])]
    assert list(runs(rows.slice(0, 0))) == []


def test_rows_are_taken_from_the_batches_that_hold_them():
    table = pa.table({"image": encoded(10)})
    wanted = [21, 23, 28]
    found = cells(Store.at("."), iter(table.to_batches(3)), 20, wanted, links=False)
    assert list(found) == [b"image 1", b"image 3", b"image 8"]
    short = list(cells(Store.at("."), iter(table.to_batches()), 0, [9, 10], links=False))
    assert short[0] == b"image 9"
    assert isinstance(short[1], ImageError)
    assert short[1].reason == "missing"
