import os

import pyarrow as pa
import pytest

from discl_ray.data.file_lists import (
    accepted,
    check_folders,
    decode_published,
    folders_of,
    raise_missing,
    read_required,
    read_text,
    table_of_files,
)
from discl_ray.data.listing import LISTING
from discl_ray.data.root import LONGEST, guard, open_root
from discl_ray.errors import DataError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "base" / "train").mkdir(parents=True)
    (tmp_path / "base" / "list.txt").write_bytes("é".encode())
    (tmp_path / "base" / "train" / "1.png").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"s")
    return open_root(str(tmp_path / "base"))


def test_a_required_file_is_read_or_what_is_there_instead_is_told(root):
    assert read_required(root, "list.txt", "a list", links=False) == "é".encode()
    assert read_text(root, "list.txt", "a list", links=False) == "é"
    with pytest.raises(
        DataError,
        match=r"looked for a list; there is no 'l\.txt'; found 2 files .*in list.txt, train",
    ):
        read_required(root, "l.txt", "a list", links=False)
    with pytest.raises(DataError, match=r"'\.\./secret' leaves data\.root"):
        read_required(root, "../secret", "a list", links=False)
    with pytest.raises(DataError, match="train: cannot be read"):
        read_required(root, "train", "a list", links=False)


def test_a_published_file_that_is_not_utf_8_is_to_be_downloaded_again():
    with pytest.raises(
        DataError, match=r"a\.txt: line 2: is not UTF-8 .*; download the file again"
    ):
        decode_published("a.txt", b"a\n\xff")


def test_what_was_looked_for_is_told_though_files_are_there(root):
    with pytest.raises(DataError, match="looked for stars; found 2 files"):
        raise_missing(root, "stars", links=False)


def test_folders_have_their_dates_or_a_negative_size(root):
    found = folders_of(root, ["train/1.png", "train/2.png", "val/1.png"])
    assert [(folder.path, folder.size) for folder in found] == [("train", 0), ("val", -1)]
    assert found[0].mtime_ns == (root.local / "train").stat().st_mtime_ns


def test_paths_are_accepted_together_or_not_at_all(root):
    given = pa.chunked_array([["train/1.png", "./a//b.png"], [" train/2.png"]])
    assert accepted(root, given).to_pylist() == ["train/1.png", "a/b.png", "train/2.png"]
    assert accepted(root, pa.chunked_array([["train/1.png", "../b.png"], ["train/2.png"]])) is None
    assert accepted(root, pa.array([], pa.string())).to_pylist() == []


@pytest.mark.parametrize("name", ["base", "b.s+ (1)", "caf\u00e9", "a:b", "back\\slash", "e\\E"])
def test_absolute_paths_are_accepted_as_each_is_alone(tmp_path, name):
    (tmp_path / name / "a").mkdir(parents=True)
    (tmp_path / name / "a" / "1.png").touch()
    (tmp_path / name / "out.png").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / name / "pipe.png")
    root = open_root(str(tmp_path / name))
    rests = ["a/1.png", "a//1.png", "a/../2.png", " 3.png", "out.png", "pipe.png", "caf\u00e9.png"]
    rests += ["", "a/", "../x.png", "..", "x" * (LONGEST - len(root.base) - 1), "x" * LONGEST]
    for path in [f"{root.base}/{rest}" for rest in rests] + [root.base, f"{root.base}x/1.png"]:
        try:
            wanted = [guard(root, path, links=True), "a/1.png"]
        except ValueError:
            wanted = None
        found = accepted(root, pa.array([path, "a/1.png"]))
        assert found == wanted if wanted is None else found.to_pylist() == wanted


def test_one_folder_of_a_list_is_enough_and_none_is_an_error(root):
    check_folders(root, "list.txt", ["train/1.png", "val/1.png"], links=False)
    check_folders(root, "list.txt", [], links=False)
    with pytest.raises(
        DataError, match=r"the images of list\.txt; there is none of its 2 folders, such as 'test'"
    ):
        check_folders(root, "list.txt", ["val/1.png", "test/1.png"], links=False)


def test_columns_of_a_list_become_a_listing():
    table = table_of_files(
        sample_id=["a"], path=["p/a"], class_key=["c"], split=["train"], group=["g"]
    )
    assert table.schema.equals(LISTING)
    (row,) = table.to_pylist()
    assert (row["path"], row["group"], row["domain"], row["row"]) == ("p/a", "g", None, None)
    assert isinstance(table, pa.Table)
