import os
from collections import Counter

import pytest

from discl_ray.data.files import pick, walk
from discl_ray.data.left_out import LeftOut, of_system
from discl_ray.errors import DataError


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


@pytest.mark.parametrize("name", [".git", "@eaDir", "Thumbs.db", "$RECYCLE.BIN", "__pycache__"])
def test_files_of_systems_and_hidden_ones_are_known_in_any_case(name):
    assert of_system(name)
    assert of_system(name.upper())
    assert not of_system(f"my {name}")


def test_what_is_left_out_is_counted_by_kind():
    left = LeftOut(
        suffixes=Counter({".txt": 3, ".heic": 1, "": 1}),
        system={"a/.x", "b/.x", "a/Thumbs.db"},
        special=["pipe"],
    )
    assert left.sentences() == [
        "left out 5 files that are no images: 3 .txt, 1 .heic, 1 without suffix",
        "1 HEIC photo can be read after pip install 'discl-ray[heic]'",
        "left out 1 file of which each is a pipe, a socket or a device: pipe",
        "left out files of systems and NAS: 1 Thumbs.db",
        "left out 2 hidden files and folders: .x",
    ]
    assert LeftOut().sentences() == []
    kinds = Counter({f".{i}": 1 for i in range(9)})
    assert LeftOut(suffixes=kinds).sentences()[0].endswith(" and 3 other kinds")
