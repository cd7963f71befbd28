import os
import pickle

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from discl_ray.core.storage import Store
from discl_ray.data.tabular import OPTIONAL, Source, list_sources, unreadable
from discl_ray.errors import DataError
from tests.support.parquet import Trap, cells, encoded, listed, read, write


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
        match=(
            r"(?s)a.parquet: .*row 1: path '../x' leaves.*row 2: path '' is empty.*row 3: .*is a "
            r"URI"
        ),
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
            r"no column 'image' .*; its columns are img, label; say which is which with "
            r"data.columns",
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


def listed_tables(*tables, names=None, **options):
    """A listing of tables in memory."""
    sources = [
        Source(path=f"{i}.x", schema=table.schema, split=None, read=table.select)
        for i, table in enumerate(tables)
    ]
    return list_sources(
        Store.at("."),
        sources,
        {},
        optional=OPTIONAL,
        files=[],
        read=lambda *_, **__: iter(()),
        links=False,
        names=names,
        **options,
    )


def test_numbers_have_names_where_the_data_set_has_them():
    table = pa.table(
        {"image": [b"x"] * 4, "label": [1, 0, 1, -1], "split": ["train"] * 3 + ["test"]}
    )
    listing = listed_tables(table, names=["cat", "dog"])
    assert cells(listing, "sample_id", "row", "class_key") == [
        ("0.x#0", 0, "dog"),
        ("0.x#1", 1, "cat"),
        ("0.x#2", 2, "dog"),
    ]
    assert listing.classes == ["cat", "dog"]
    wrong = pa.table({"image": [b"x"], "label": [2]})
    with pytest.raises(DataError, match="label 2 has no name; the 2 names are of labels 0 to 1"):
        listed_tables(wrong, names=["cat", "dog"])


def test_a_split_that_is_open_may_lack_all_labels_or_none():
    table = pa.table({"image": [b"x"] * 2, "label": ["a", None]})
    with pytest.raises(DataError, match=r"'0\.x#1' has no label, but others of its split have"):
        listed_tables(table)


def test_a_broken_file_is_named_with_what_to_do():
    error = unreadable("a.x", "a table", OSError("odd"))
    assert str(error) == "a.x: cannot be read as a table: odd; remove it or download it again"

    def broken(_columns):
        raise pa.ArrowInvalid("odd")

    table = pa.table({"image": [b"x"], "label": ["a"]})
    source = Source(path="a.x", schema=table.schema, split=None, read=broken)
    with pytest.raises(DataError, match=r"a\.x: cannot be read as a table: odd"):
        list_sources(Store.at("."), [source], {}, optional=(), files=[], read=iter, links=False)
