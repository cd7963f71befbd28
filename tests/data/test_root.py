import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.data.root import LONGEST, guard, in_nfc, leads_out, open_root, same_name
from discl_ray.errors import DataError


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


def test_only_local_links_lead_out_of_the_root(root, memory, tmp_path):
    (root.local / "out.png").symlink_to(tmp_path / "secret.png")
    (root.local / "inside.png").symlink_to("a/b/x.png")
    assert leads_out(root, "out.png", set())
    assert not leads_out(root, "inside.png", set())
    assert not leads_out(root, "a/b/x.png", set())
    assert not leads_out(memory, "b/2.png", set())


def test_names_are_compared_with_composed_accents_and_without_blanks():
    assert in_nfc("cafe\u0301") == "caf\u00e9"
    assert same_name(" cafe\u0301 ") == "caf\u00e9"
    assert same_name("  ") == "  "
