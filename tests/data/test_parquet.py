import contextlib
import os
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discl_ray.config import load_config
from discl_ray.data.config import ParquetConfig
from discl_ray.data.parquet import parquet
from discl_ray.data.parquet_files import split_of_path
from discl_ray.data.settle import settled
from discl_ray.errors import ConfigError, DataError, ImageError
from tests.conftest import promptly

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def listed(root, **config):
    return parquet(ParquetConfig(root=str(root), **config), 0)


def cells(listing, *columns):
    return list(zip(*(listing.table[c].to_pylist() for c in columns), strict=True))


def read(listing, rows=None):
    table = listing.table if rows is None else listing.table.take(rows)
    return [i.reason if isinstance(i, ImageError) else i for i in listing.read(listing.root, table)]


def write(file, row_group_size=3, **columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file, row_group_size=row_group_size)


def encoded(count, start=0):
    return [f"image {start + i}".encode() for i in range(count)]


def test_bytes_and_text_labels_file_after_file(tmp_path):
    write(tmp_path / "b.parquet", image=pa.array(encoded(2, 4)), label=["0123", "cat"])
    write(tmp_path / "a.PARQUET", image=pa.array(encoded(4)), label=["cat", "dog", "cat", "ant"])
    write(tmp_path / ".hidden.parquet", image=["x"], label=["x"])
    (tmp_path / "_SUCCESS").touch()
    listing = listed(tmp_path)
    nothing = {"split": None, "domain": None, "group": None}
    keys = ["cat", "dog", "cat", "ant", "0123", "cat"]
    places = [
        ("a.PARQUET", 0),
        ("a.PARQUET", 1),
        ("a.PARQUET", 2),
        ("a.PARQUET", 3),
        ("b.parquet", 0),
        ("b.parquet", 1),
    ]
    assert listing.table.to_pylist() == [
        {"sample_id": f"{p}#{i}", "path": p, "row": i, "class_key": k, **nothing}
        for k, (p, i) in zip(keys, places, strict=True)
    ]
    assert (listing.in_files, listing.classes) == (False, None)
    assert read(listing) == encoded(6)
    travelled = pickle.loads(pickle.dumps(listing.read))  # noqa: S301 - as to a Ray worker
    assert travelled.keywords == {"column": "image", "links": False}


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


def test_paths_are_files_of_their_own(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.png").write_bytes(b"one")
    paths = ["in/1.png", "./in//2.png", f"{tmp_path}/in/1.png"]
    write(tmp_path / "a.parquet", image=pa.array(paths).dictionary_encode(), label=["a", "b", "c"])
    listing = listed(tmp_path)
    assert listing.in_files
    assert cells(listing, "path", "row", "sample_id") == [
        ("in/1.png", None, "a.parquet#0"),
        ("in/2.png", None, "a.parquet#1"),
        ("in/1.png", None, "a.parquet#2"),
    ]
    assert read(listing) == [b"one", "missing", b"one"]
    os.utime(tmp_path / "in" / "1.png", (5, 5))
    assert listed(tmp_path).stamp != listing.stamp
    write(tmp_path / "a.parquet", image=["in/1.png", "../x", None, "file:///y"], label=["a"] * 4)
    with pytest.raises(
        DataError,
        match=r"(?s)a.parquet: .*row 1: path '../x' leaves.*row 2: path '' is empty.*row 3: .*is a URI",
    ):
        listed(tmp_path)


@pytest.mark.parametrize(
    "dtype", [pa.int64(), pa.int8(), pa.uint16(), pa.dictionary(pa.int8(), pa.int32())]
)
def test_whole_numbers_are_classes_in_their_order(tmp_path, dtype):
    numbers = [10, 9, 100, 0, 9]
    label = pa.array(numbers, dtype.value_type if pa.types.is_dictionary(dtype) else dtype)
    write(
        tmp_path / "a.parquet",
        image=encoded(5),
        label=label.dictionary_encode() if pa.types.is_dictionary(dtype) else label,
    )
    write(tmp_path / "b.parquet", image=encoded(1), label=pa.array([2], pa.int32()))
    listing = listed(tmp_path)
    assert cells(listing, "class_key") == [("10",), ("9",), ("100",), ("0",), ("9",), ("2",)]
    assert listing.classes == ["0", "2", "9", "10", "100"]


def test_optional_columns_by_our_name_or_theirs(tmp_path):
    columns = {
        "img": encoded(3),
        "y": pd.Categorical(["a", "b", "a"]),
        "fold": ["train", "DEV", None],
        "id": [7, 8, 9],
    }
    pd.DataFrame({**columns, "site": ["n", None, "s"], "more": [[1], [2], [3]]}).to_parquet(
        tmp_path / "train.parquet"
    )
    names = {
        "image": "img",
        "label": "y",
        "split": "fold",
        "sample_id": "id",
        "group": "site",
        "domain": "site",
    }
    listing = listed(tmp_path, columns=names)
    assert cells(listing, "sample_id", "class_key", "split", "domain", "group") == [
        ("7", "a", "train", "n", "n"),
        ("8", "b", "val", None, None),
        ("9", "a", None, "s", "s"),
    ]
    assert read(listing) == encoded(3)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("data/validation-00000-of-00002-abc.parquet", "val"),
        ("VAL_1.parquet", "val"),
        ("test.parquet", "test"),
        ("training.parquet", "train"),
        ("x/Test/part-0.parquet", "test"),
        ("train/test/0.parquet", "test"),
        ("trainer.parquet", None),
        ("0-train.parquet", None),
        ("testimony/a.parquet", None),
    ],
)
def test_names_of_files_and_folders_say_the_split(path, split):
    assert split_of_path(path) == split


def test_splits_of_files_are_those_of_their_rows(tmp_path):
    write(tmp_path / "test-0.parquet", image=encoded(2), label=[1, 1])
    write(tmp_path / "train-0.parquet", image=encoded(1), label=[0])
    assert cells(listed(tmp_path), "split") == [("test",), ("test",), ("train",)]


def test_a_split_without_any_label_is_left_out(tmp_path):
    write(tmp_path / "test-0.parquet", image=encoded(2), label=pa.nulls(2, pa.int64()))
    write(tmp_path / "train-0.parquet", image=encoded(2, 5), label=[3, 1])
    listing = listed(tmp_path)
    assert cells(listing, "sample_id", "class_key") == [
        ("train-0.parquet#0", "3"),
        ("train-0.parquet#1", "1"),
    ]
    assert read(listing) == encoded(2, 5)
    write(tmp_path / "test-0.parquet", image=encoded(2), label=pa.array([None, 1]))
    with pytest.raises(
        DataError, match=r"'test-0\.parquet#0' has no label, but others of its split have"
    ):
        listed(tmp_path)
    (tmp_path / "train-0.parquet").unlink()
    write(tmp_path / "test-0.parquet", image=encoded(2), label=pa.nulls(2, pa.string()))
    with pytest.raises(DataError, match=r"test-0\.parquet: no row has a label"):
        listed(tmp_path)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_any_rows_in_any_order_come_from_their_row_groups(tmp_path_factory, count, group, data):
    root = tmp_path_factory.getbasetemp() / "groups"
    root.mkdir(exist_ok=True)
    for name, start in (("a", 0), ("b", 100)):
        write(root / f"{name}.parquet", group, image=encoded(count, start), label=[1] * count)
    wanted = data.draw(st.lists(st.integers(0, 2 * count - 1), max_size=20))
    listing = listed(root)
    assert read(listing, pa.array(wanted, pa.int64())) == [
        (encoded(count) + encoded(count, 100))[i] for i in wanted
    ]


def test_only_the_row_groups_that_are_needed_are_read(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", 10, image=encoded(100), label=[1] * 100, other=["x"] * 100)
    listing = listed(tmp_path)
    asked = []

    class Watched(pq.ParquetFile):
        def iter_batches(self, *args, **options):
            asked.append((options["row_groups"], options["columns"]))
            return super().iter_batches(*args, **options)

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    assert read(listing, [5, 9, 42]) == [b"image 5", b"image 9", b"image 42"]
    assert asked == [([0], ["image"]), ([4], ["image"])]


def test_a_damaged_page_costs_its_rows_and_no_others(tmp_path):
    file = tmp_path / "a.parquet"
    columns = {"image": [bytes([i]) * 2000 for i in range(20)], "label": [1] * 20}
    pq.write_table(
        pa.table(columns), file, row_group_size=10, compression="zstd", use_dictionary=False
    )
    listing = listed(tmp_path)
    chunk = pq.read_metadata(file).row_group(0).column(0)
    data = bytearray(file.read_bytes())
    data[chunk.data_page_offset + 40 : chunk.data_page_offset + chunk.total_compressed_size] = (
        b"\xff" * (chunk.total_compressed_size - 40)
    )
    file.write_bytes(data)
    assert read(listing) == ["unreadable"] * 10 + [bytes([i]) * 2000 for i in range(10, 20)]
    file.write_bytes(b"PAR1 and no more")
    assert read(listing) == ["unreadable"] * 20
    file.unlink()
    assert read(listing) == ["unreadable"] * 20
    write(file, image=encoded(5), label=[1] * 5)
    assert read(listing) == [*encoded(5), *["missing"] * 15]
    write(file, image=[1.0] * 20, label=[1] * 20)
    assert read(listing) == ["unreadable"] * 20


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        b"PAR1" * 100,
        b"\x89PNG" * 50,
        b"PAR1" + b"\xff" * 100 + b"\xff\xff\xff\x7fPAR1",
    ],
)
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "broken.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.parquet: cannot be read as a Parquet file"):
        listed(tmp_path)


def test_a_file_damaged_anywhere_ends_in_a_dataerror_or_rows(tmp_path):
    file = tmp_path / "a.parquet"
    write(
        file,
        4,
        image=pa.array([{"bytes": b, "path": None} for b in encoded(12)], STRUCT),
        label=[f"c{i % 3}" for i in range(12)],
    )
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        file.write_bytes(data[: len(data) - int(rng.integers(0, 2) * rng.integers(0, 40))])
        with contextlib.suppress(DataError):
            listing = listed(tmp_path)
            assert len(list(listing.read(listing.root, listing.table))) == listing.table.num_rows


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": [1.5], "label": [1]},
            "image column 'image' is of type double; needed: encoded images",
        ),
        ({"image": [[1, 2]], "label": [1]}, "image column 'image' is of type list"),
        ({"image": [{"path": "x"}], "label": [1]}, "image column 'image' is of type struct"),
        (
            {"image": [b"x"], "label": [1.0]},
            "the column for label is of type double; needed: text or whole numbers",
        ),
        ({"image": [b"x"], "label": [True]}, "the column for label is of type bool"),
        ({"image": [b"x"], "label": [[1]]}, "the column for label is of type list"),
        ({"image": [b"x", b"y"], "label": ["a", ""]}, "row 1: label '' is empty"),
        ({"image": [b"x", b"y"], "label": [" a", " "]}, "row 1: label ' ' is empty"),
        ({"image": [b"x"], "label": [1], "split": ["holdout"]}, "split 'holdout' is none of train"),
        ({"image": [b"x"], "label": [1], "split": [3]}, "split '3' is none of train"),
        (
            {"image": [b"x", b"y"], "label": [1, 1], "sample_id": ["a", "a"]},
            "sample_id 'a' is duplicated",
        ),
        (
            {"image": [b"x", b"y"], "label": [1, 1], "sample_id": ["a", None]},
            "row 1 has no 'sample_id'",
        ),
        ({"image": [b"x"], "label": [1], "group": [1.5]}, "the column for group is of type double"),
        (
            {"img": [b"x"], "label": [1]},
            r"no column 'image' .*; its columns are img, label; say which is which with data.columns",
        ),
        (
            {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())},
            "no row in 1 file",
        ),
    ],
)
def test_what_is_wrong_is_told(tmp_path, columns, message):
    write(tmp_path / "a.parquet", **columns)
    with pytest.raises(DataError, match=message):
        listed(tmp_path)


def test_blanks_at_the_ends_of_labels_are_no_part_of_them(tmp_path):
    write(
        tmp_path / "a.parquet",
        image=[b"x", b"y", b"z", b"w"],
        label=[" a", "a", "b ", "caf\u0065\u0301"],
    )
    listing = settled(listed(tmp_path), links=False)
    assert listing.table["class_key"].to_pylist() == ["a", "a", "b", "caf\u00e9"]
    assert len(listing.notes) == 2
    assert "' a' and 'a' are 'a'" in listing.notes[0]


def test_a_file_that_is_a_link_out_of_the_root_is_refused(tmp_path):
    write(tmp_path / "a.parquet", image=[b"x"], label=["a"])
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.parquet").symlink_to(tmp_path / "a.parquet")
    with pytest.raises(
        DataError,
        match=r"^a\.parquet: is a symbolic link out of .* data\.allow_links_outside=true follows it$",
    ):
        listed(tmp_path / "root")
    assert listed(tmp_path / "root", allow_links_outside=True).table.num_rows == 1


def test_files_that_do_not_belong_together_are_named(tmp_path):
    write(tmp_path / "a.parquet", image=[b"x"], label=[1])
    write(tmp_path / "b.parquet", image=[b"x"], label=["1"])
    with pytest.raises(
        DataError, match=r"a\.parquet and b\.parquet have images or labels of different types"
    ):
        listed(tmp_path)
    write(tmp_path / "b.parquet", image=["x.png"], label=[1])
    with pytest.raises(DataError, match="different types"):
        listed(tmp_path)
    write(tmp_path / "b.parquet", image=[b"x"], label=[1], sample_id=["a.parquet#0"])
    with pytest.raises(DataError, match=r"'a\.parquet#0' is duplicated"):
        listed(tmp_path)


def test_a_column_that_stands_twice(tmp_path):
    pq.write_table(
        pa.Table.from_arrays(
            [pa.array([b"x"])] * 2 + [pa.array([1])], names=["image", "image", "label"]
        ),
        tmp_path / "a.parquet",
    )
    with pytest.raises(DataError, match="2 columns are called 'image'"):
        listed(tmp_path)


def test_text_that_is_no_text(tmp_path):
    raw = pa.array([b"caf\xe9"])
    text = pa.Array.from_buffers(pa.string(), 1, raw.buffers())
    write(tmp_path / "a.parquet", image=[b"x"], label=text)
    with pytest.raises(DataError, match="label holds text that is not UTF-8"):
        listed(tmp_path)


class Trap:
    """Unpickling it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "name",
    ["ray.data.arrow_pickled_object", "ray.data.arrow_tensor", "ray.data.arrow_tensor_v2", "x.y"],
)
@pytest.mark.parametrize("column", ["image", "label", "group"])
def test_extension_types_are_refused_and_never_loaded(tmp_path, known, name, column):
    if known:
        import ray.data  # noqa: F401 - registers its types
        from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType  # noqa: F401
    trap = pickle.dumps(Trap(tmp_path / "trace"))
    storage = pa.list_(pa.float32()) if "tensor" in name else pa.large_binary()
    metadata = {
        "ARROW:extension:name": name,
        "ARROW:extension:metadata": trap if "tensor" in name else b"",
    }
    fields = {
        "image": pa.field("image", pa.binary()),
        "label": pa.field("label", pa.int64()),
        "group": pa.field("group", pa.string()),
    }
    fields[column] = pa.field(column, storage, metadata=metadata)
    values = {"image": b"x", "label": 1, "group": "g", column: [1.0] if "tensor" in name else trap}
    table = pa.Table.from_arrays(
        [pa.array([values[f]], fields[f].type) for f in fields],
        schema=pa.schema(list(fields.values())),
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: ") as caught:
        listed(tmp_path)
    assert "extension type" in str(caught.value) or "cannot be read" in str(caught.value)
    assert not (tmp_path / "trace").exists()


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


def test_wrong_folders_are_told_at_once(tmp_path):
    (tmp_path / "x.csv").touch()
    with (
        promptly(),
        pytest.raises(
            DataError, match=r"looked for \*\.parquet; found 1 file \(1 \.csv\) in x\.csv"
        ),
    ):
        listed(tmp_path)
    (tmp_path / "empty.yaml").write_text("seed: 0\n")
    with pytest.raises(ConfigError, match="'path' is none of our columns"):
        load_config(
            tmp_path / "empty.yaml", ["data.name=parquet", "data.root=x", "data.columns.path=img"]
        )


def test_the_stamp_changes_with_the_files(tmp_path):
    write(tmp_path / "a.parquet", image=[b"x"], label=[1])
    stamp = listed(tmp_path).stamp
    assert listed(tmp_path).stamp == stamp
    os.utime(tmp_path / "a.parquet", (5, 5))
    assert listed(tmp_path).stamp != stamp
