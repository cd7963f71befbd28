import os
import socket
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.data.columns import choose_columns
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
from discl_ray.data.left_out import LeftOut
from discl_ray.data.listing import read_files
from discl_ray.data.names import load_names
from discl_ray.data.root import LONGEST, guard, open_root
from discl_ray.data.text_files import MOST_PROBLEMS, Problems
from discl_ray.data.wording import readable, shown
from discl_ray.errors import ConfigError, DataError
from discl_ray.plan.config import PromptConfig
from discl_ray.plan.prompts import load_prompts
from tests.conftest import promptly


@pytest.fixture
def root(tmp_path):
    """A root with a file in a folder, and a secret beside it."""
    (tmp_path / "base" / "a" / "b").mkdir(parents=True)
    (tmp_path / "base" / "a" / "b" / "x.png").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"s")
    return open_root(str(tmp_path / "base"))


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe(
        {
            "/walked/b/2.png": b"22",
            "/walked/b-c/1.png": b"1",
            "/walked/.hidden/x.png": b"",
            "/walked/b/.x": b"",
        }
    )
    yield open_root("memory://walked")
    filesystem.rm("/walked", recursive=True)


def paths(root, folder="", **options):
    return [file.path for file in walk(root, folder, **options)]


def test_a_root_that_is_not_there_names_its_neighbours(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"no such folder; .* holds photos"):
        open_root(str(tmp_path / "fotos"))
    with pytest.raises(DataError, match="is a file; name the folder"):
        open_root(str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot be opened"):
        open_root("nosuchscheme://bucket/x")
    with pytest.raises(DataError):
        open_root(str(tmp_path / "\0"))
    with pytest.raises(DataError, match=r"no such folder$"):
        open_root(str(tmp_path / "no" / "parent"))


def test_a_root_is_the_same_by_other_spellings(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "a")
    for spelling in ("~/a/b", "b", "../a/b/", (tmp_path / "a" / "b").as_uri()):
        assert open_root(spelling).base == str(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("a/b/x.png", "a/b/x.png"),
        ("./a//b/../b/x.png", "a/b/x.png"),
        ("a\\b\\x.png", "a/b/x.png"),
        ("not/there.png", "not/there.png"),
        ("a/.../x", "a/.../x"),
        ("with blank/🐈.png", "with blank/🐈.png"),
        ("..x/y", "..x/y"),
        ("x" * 300, "x" * 300),
    ],
)
def test_paths_under_the_root_are_plain(root, path, plain):
    assert guard(root, path, links=False) == plain


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("", "empty"),
        (" \n", "empty"),
        (" ../a", "leaves"),
        (" /etc/passwd ", "is absolute"),
        (".", "leaves"),
        ("a/..", "leaves"),
        ("..", "leaves"),
        ("../secret.png", "leaves"),
        ("a/../../secret.png", "leaves"),
        ("..\\secret.png", "leaves"),
        ("a/b/../../../base/../secret.png", "leaves"),
        ("/etc/passwd", "absolute"),
        ("//etc/passwd", "absolute"),
        ("\\etc\\passwd", "absolute"),
        ("file:///etc/passwd", "URI"),
        ("FILE:/etc/passwd", "URI"),
        ("https://x.org/a.png", "URI"),
        ("s3://b/a.png", "URI"),
        ("a\0.png", "NUL"),
        ("x" * (LONGEST + 1), "more than"),
        ("a/" * 2500, "more than"),
    ],
)
@pytest.mark.parametrize("links", [False, True])
def test_paths_out_of_the_root_are_refused(root, path, rule, links):
    with pytest.raises(ValueError, match=rule):
        guard(root, path, links=links)


def test_an_absolute_path_under_the_root_is_taken_by_either_name_of_the_root(root, tmp_path):
    (tmp_path / "alias").symlink_to(tmp_path / "base")
    by_alias = open_root(str(tmp_path / "alias"))
    for absolute in (
        tmp_path / "alias" / "a" / "b" / "x.png",
        tmp_path / "base" / "a" / "b" / "x.png",
    ):
        assert guard(by_alias, str(absolute), links=False) == "a/b/x.png"
    with pytest.raises(ValueError, match="absolute"):
        guard(root, f"{root.base}-beside/x.png", links=False)
    with pytest.raises(ValueError, match=r"leaves|absolute"):
        guard(root, root.base, links=False)
    assert guard(open_root("/"), "/etc/passwd", links=False) == "etc/passwd"


def test_links_out_of_the_root_are_refused_wherever_they_stand(root, tmp_path):
    (root.local / "file.png").symlink_to(tmp_path / "secret.png")
    (root.local / "up").symlink_to("..")
    (root.local / "chain").symlink_to("up")
    (root.local / "inside.png").symlink_to("a/b/x.png")
    (root.local / "none.png").symlink_to("nothing")
    (root.local / "loop").symlink_to("loop")
    for path in ("file.png", "up/secret.png", "chain/secret.png", "chain/not-there"):
        with pytest.raises(ValueError, match="symbolic link"):
            guard(root, path, links=False)
        assert guard(root, path, links=True) == path
    for path in ("inside.png", "none.png", "up/base/a/b/x.png", "loop/x"):
        assert guard(root, path, links=False) == path


def test_a_folder_known_to_be_inside_does_not_hide_a_link_below_it(root, tmp_path):
    known = set[str]()
    assert guard(root, "a/b/x.png", links=False, known=known) == "a/b/x.png"
    assert known == {"a", "a/b"}
    (root.local / "a" / "b" / "out").symlink_to(tmp_path)
    for path in ("a/b/out", "a/b/out/secret.png"):
        with pytest.raises(ValueError, match="symbolic link"):
            guard(root, path, links=False, known=known)
    assert guard(root, "a/b/y.png", links=False, known=known) == "a/b/y.png"


def test_what_would_block_a_reader_is_named_among_what_is_left_out(root):
    os.mkfifo(root.local / "a" / "pipe.png")
    os.mkfifo(root.local / "other")
    left = LeftOut()
    assert [file.path for file in walk(root, left=left)] == ["a/b/x.png"]
    assert left.sentences() == [
        "left out 2 files of which each is a pipe, a socket or a device: a/pipe.png, other"
    ]
    with pytest.raises(DataError, match=r"looked for tables; .*; 'a/pipe\.png' is a pipe"):
        pick(root, lambda path: path.endswith(".csv"), "tables", links=False)


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


@given(
    st.lists(
        st.sampled_from(["..", ".", "", "a", "b", "x.png", "up", "~", "a\\..", "..\\.."]),
        max_size=8,
    ).map("/".join)
)
def test_whatever_is_let_through_lies_under_the_root(tmp_path_factory, path):
    base = tmp_path_factory.getbasetemp() / "guarded"
    if not base.exists():
        (base / "a" / "b").mkdir(parents=True)
        (base / "a" / "up").symlink_to("../..")
    root = open_root(str(base))
    try:
        plain = guard(root, path, links=False)
    except ValueError:
        return
    assert not plain.startswith("/")
    assert ".." not in plain.split("/")
    assert os.path.realpath(base / plain).startswith(f"{os.path.realpath(base)}/")


def test_remote_roots_have_no_absolute_paths(memory):
    assert guard(memory, "b/../b/2.png", links=False) == "b/2.png"
    for path in ("/walked/b/2.png", "../x", "memory://walked/b/2.png"):
        with pytest.raises(ValueError, match=r"absolute|leaves|URI"):
            guard(memory, path, links=False)


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


@given(st.binary())
def test_readable_text_can_be_stored(name):
    readable(os.fsdecode(name)).encode()


@given(st.text())
def test_shown_text_is_one_line_without_control_characters(text):
    line = shown(text)
    assert line.isprintable()
    assert len(line) < 1500
    if text.isprintable() and len(text) <= 120:
        assert line == text


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


def test_problems_are_told_together_and_not_endlessly():
    problems = Problems("x.csv")
    problems.check()
    problems.add("line 2", "is odd")
    problems.add("line 9", "is even")
    with pytest.raises(DataError, match=r"x.csv: .*\n  line 2: is odd\n  line 9: is even"):
        problems.check()
    for line in range(MOST_PROBLEMS - 3):
        problems.add(f"line {line}", "is odd")
    with pytest.raises(DataError, match="there may be more") as caught:
        problems.add("line 99", "is odd")
    assert str(caught.value).count("line ") == MOST_PROBLEMS


@pytest.mark.parametrize("word", ["train", "TRAIN", "Training"])
def test_words_for_train(word):
    assert split_of(word) == "train"


def test_words_for_splits():
    assert [split_of(w) for w in ("val", "valid", "Validation", "DEV", "test", "testing")] == [
        "val"
    ] * 4 + ["test"] * 2
    assert [split_of(w) for w in ("", "trainer", "holdout", "train ")] == [None] * 4


def test_columns_are_found_by_our_name_or_theirs():
    options = {"required": ("path", "label"), "optional": ("split",), "where": "x.csv"}
    assert choose_columns({}, ["label", "path", "more"], **options) == {
        "path": "path",
        "label": "label",
    }
    assert (
        choose_columns({"label": "y"}, ["y", "label", "path", "split"], **options)["label"] == "y"
    )
    with pytest.raises(
        DataError,
        match=r"x.csv: no column 'label' \(did you mean 'Label'\?\); its columns are path, Label",
    ):
        choose_columns({}, ["path", "Label"], **options)
    with pytest.raises(DataError, match="no column 'fold'"):
        choose_columns({"split": "fold"}, ["path", "label"], **options)
    with pytest.raises(DataError, match="2 columns are called 'path'"):
        choose_columns({}, ["path", "label", "path"], **options)
    assert choose_columns({}, ["path", "label", "more", "more"], **options)
