import os

import pyarrow as pa
import pytest

from discl_ray.core.storage import Store
from discl_ray.data.listing import (
    LISTING,
    REJECTS,
    inline,
    listing_table,
    read_files,
    read_inline,
    refused_files,
    set_column,
)
from discl_ray.data.names import load_names
from discl_ray.errors import ConfigError, DataError
from discl_ray.plan.config import PromptConfig
from discl_ray.plan.prompts import load_prompts
from tests.support.runs import promptly


def test_reading_what_would_block_ends_at_once(root):
    os.mkfifo(root.local / "pipe.png")
    with promptly():
        with pytest.raises(OSError, match="is a pipe"):
            root.read("pipe.png")
        (row,) = read_files(root, pa.table({"path": ["pipe.png"]}))
        assert str(row) == "unreadable: is a pipe, a socket or a device"
        for load, refusal in ((load_names, DataError), (load_scenes, ConfigError)):
            with pytest.raises(
                refusal,
                match=r"(data\.names|prompts\.scenes) = '.*pipe\.png': cannot be read: is a pipe",
            ):
                load(str(root.local / "pipe.png"))


def load_scenes(path):
    return load_prompts(PromptConfig(scenes=path))


def rows_of(*ids):
    return [{"sample_id": id_, "class_key": id_[0], "bytes": id_.encode()} for id_ in ids]


def test_images_in_memory_are_listed_with_their_bytes():
    listing = inline(rows_of("b1", "a2"), Store.at("."))
    assert listing.table.select(LISTING.names).schema.equals(LISTING)
    assert list(listing.read(listing.root, listing.table)) == [b"b1", b"a2"]
    assert listing.read is read_inline
    assert (listing.in_files, listing.keys) == (False, ["a", "b"])
    assert inline(rows_of("b1", "a2"), Store.at("."), ("b", "a", "c")).keys == ["b", "a", "c"]


def test_the_stamp_changes_with_an_image_or_its_name():
    stamps = {
        inline(rows, Store.at(".")).stamp
        for rows in (
            rows_of("a", "b"),
            rows_of("a", "c"),
            [{**rows_of("a")[0], "bytes": b"x"}, *rows_of("b")],
        )
    }
    assert len(stamps) == 3
    assert inline(rows_of("a", "b"), Store.at(".")).stamp in stamps


def test_a_column_is_replaced_in_its_place():
    table = set_column(listing_table([{"sample_id": "a"}]), "class_key", pa.array(["x"]))
    assert table.column_names == LISTING.names
    assert table["class_key"].to_pylist() == ["x"]


def test_refused_files_are_rejects():
    refused = refused_files(["a", "b"], ["train", None], "is a link")
    assert refused.schema.equals(REJECTS)
    assert refused.to_pylist()[1] == {
        "sample_id": "b",
        "split": None,
        "reason": "refused",
        "detail": "refused: is a link",
    }


def test_files_are_read_in_order_and_what_is_missing_is_told(root):
    rows = pa.table({"path": ["a/b/x.png", "none.png", "caf\\xe9.png", "a"]})
    found = list(read_files(root, rows))
    assert found[0] == b"x"
    assert [str(item) for item in found[1:3]] == [
        "missing: no such file",
        "missing: its name is not UTF-8; rename it",
    ]
    assert found[3].reason == "unreadable"
