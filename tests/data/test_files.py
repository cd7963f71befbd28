import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from discl_ray.data.files import (
    File,
    found_instead,
    is_image,
    pick,
    split_of,
    stamp_of,
    stat_files,
    walk,
)
from discl_ray.data.root import guard, open_root
from discl_ray.errors import DataError


def paths(root, folder="", **options):
    return [file.path for file in walk(root, folder, **options)]


def test_what_would_block_a_reader_is_refused_and_not_listed(root):
    os.mkfifo(root.local / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(root.local)  # a socket's path is short
        try:
            server.bind("socket.png")
        finally:
            os.chdir(here)
        for path in ("pipe.png", "socket.png"):
            with pytest.raises(ValueError, match="pipe"):
                guard(root, path, links=False)
        assert paths(root) == ["a/b/x.png"]


def test_walk_lists_files_by_name_without_hidden_ones(root):
    for path in ("b-c/1", "b/2", "b/.x", ".git/config", "__MACOSX/x.png", "Z/1", "b.txt"):
        (root.local / path).parent.mkdir(exist_ok=True)
        (root.local / path).write_text(path)
    assert paths(root) == ["Z/1", "a/b/x.png", "b/2", "b-c/1", "b.txt"]
    assert paths(root, "a/b") == ["a/b/x.png"]
    file = next(walk(root))
    assert (file.size, file.mtime_ns) == (3, (root.local / "Z" / "1").stat().st_mtime_ns)
    with pytest.raises(DataError, match="none: cannot be listed"):
        paths(root, "none")


def test_walk_of_a_remote_root_has_the_same_order(memory):
    assert paths(memory) == ["b/2.png", "b-c/1.png"]
    assert paths(memory, "b") == ["b/2.png"]
    assert paths(memory, "none") == []
    assert [file.size for file in walk(memory)] == [2, 1]


def test_walk_ends_at_loops_and_at_links_out_of_the_root(root, tmp_path):
    (root.local / "a" / "again").symlink_to("..")
    (root.local / "a" / "b" / "self").symlink_to("self")
    (root.local / "twin").symlink_to("a")
    (root.local / "gone.png").symlink_to("nothing")
    found = paths(root)
    assert "a/b/x.png" in found
    assert "twin/b/x.png" in found
    assert len(found) < 20
    assert File("gone.png", -1, 0) in set(walk(root))
    (root.local / "out").symlink_to(tmp_path)
    (root.local / "linked.png").symlink_to(tmp_path / "secret.png")
    assert {File("out/", -1, 0), File("linked.png", -1, 0)} <= set(walk(root))
    (root.local / "linked.png").unlink()
    followed = paths(root, links=True)
    assert "out/secret.png" in followed
    assert len(followed) < 60


def test_walk_goes_deeper_than_pythons_calls(tmp_path):
    here, depth = os.getcwd(), sys.getrecursionlimit() + 200
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        Path("x.png").touch()
        os.chdir(here)
        assert paths(open_root(str(tmp_path))) == ["d/" * depth + "x.png"]
    finally:
        os.chdir(here)
        subprocess.run(
            ["rm", "-r", str(tmp_path / "d")], check=True
        )  # Python's own rmtree does not go so deep


def test_a_name_that_is_no_text_is_listed_as_text(root):
    try:
        (root.local / os.fsdecode(b"caf\xe9.png")).touch()
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    assert paths(root) == ["a/b/x.png", "caf\\xe9.png"]


def test_a_stamp_changes_with_names_sizes_and_dates(root):
    file = File("a", 1, 2)
    stamps = [
        stamp_of(x)
        for x in ([file], [File("b", 1, 2)], [File("a", 2, 2)], [File("a", 1, 3)], [file, file], [])
    ]
    assert len(set(stamps)) == len(stamps)
    assert stamp_of([file]) == stamps[0]
    assert stamp_of([file], "more") != stamps[0]
    before = stamp_of(walk(root))
    os.utime(root.local / "a" / "b" / "x.png", (1, 1))
    assert stamp_of(walk(root)) != before


def test_sizes_of_files_that_are_there_or_not(root, memory):
    date = (root.local / "a" / "b" / "x.png").stat().st_mtime_ns
    wanted = ["none", "a/b/x.png", "n" * 300, "a/b/x.png"]
    assert stat_files(root, wanted) == [
        File("none", -1, 0),
        File("a/b/x.png", 1, date),
        File("n" * 300, -1, 0),
        File("a/b/x.png", 1, date),
    ]
    assert [file.size for file in stat_files(memory, ["b/2.png", "none", "b-c/1.png"])] == [
        2,
        -1,
        1,
    ]


def test_a_wrong_folder_is_told_by_what_lies_in_it(root, monkeypatch):
    assert [file.path for file in pick(root, is_image, "images", links=False)] == ["a/b/x.png"]
    (root.local / "a" / "b" / "x.png").unlink()
    with pytest.raises(DataError, match="looked for images; the folder is empty"):
        pick(root, is_image, "images", links=False)
    for i in range(8):
        (root.local / f"{i}.txt").touch()
    with pytest.raises(DataError, match=r"found 8 files \(8 .txt\) in 0.txt, 1.txt"):
        pick(root, is_image, "images", links=False)
    monkeypatch.setattr("discl_ray.data.files.LOOK", 5)
    with pytest.raises(DataError, match=r"found 5 files .*did not look further"):
        pick(root, is_image, "images", links=False)
    (root.local / "0.png").touch()
    assert len(pick(root, is_image, "images", links=False)) == 1
    assert "no suffix" in found_instead([File("README", 1, 1)])


@pytest.mark.parametrize("word", ["train", "TRAIN", "Training"])
def test_words_for_train(word):
    assert split_of(word) == "train"


def test_words_for_splits():
    assert [split_of(w) for w in ("val", "valid", "Validation", "DEV", "test", "testing")] == [
        "val"
    ] * 4 + ["test"] * 2
    assert [split_of(w) for w in ("", "trainer", "holdout", "train ")] == [None] * 4
