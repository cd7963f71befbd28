import os
import pickle

import pyarrow as pa
import pytest

from discl_ray.config import load_config
from discl_ray.data.settle import settled
from discl_ray.errors import ConfigError, DataError
from tests.support.parquet import cells, encoded, listed, read, write
from tests.support.runs import promptly


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


def test_splits_of_files_are_those_of_their_rows(tmp_path):
    write(tmp_path / "test-0.parquet", image=encoded(2), label=[1, 1])
    write(tmp_path / "train-0.parquet", image=encoded(1), label=[0])
    assert cells(listed(tmp_path), "split") == [("test",), ("test",), ("train",)]


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
        match=(
            r"^a\.parquet: is a symbolic link out of .* data\.allow_links_outside=true follows it$"
        ),
    ):
        listed(tmp_path / "root")
    assert listed(tmp_path / "root", allow_links_outside=True).table.num_rows == 1


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
