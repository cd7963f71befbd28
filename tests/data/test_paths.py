"""Paths that are checked by columns are judged as each is alone."""

import os

import numpy as np
import pyarrow as pa
import pytest

from discl_ray.core.storage import Store
from discl_ray.data import paths as module
from discl_ray.data.paths import folder_column, guarded, leading_out, odd_files
from discl_ray.data.root import guard, leads_out, open_root

ODD = [
    "a/1.png",
    "a/out.png",
    "a/in.png",
    "a/pipe",
    "a/none.png",
    "none/1.png",
    "linked/2.png",
    "away/secret.png",
    "1.png",
    " a/1.png ",
    "a//1.png",
    "./a/1.png",
    "a/../a/1.png",
    "../secret.png",
    "a\\1.png",
    "s3://b/1.png",
    "a/caf\u00e9.png",
    "a/",
    "..",
    "",
    "x" * 5000,
    "a/b\0c",
    "a/with blank.png",
    "~/1.png",
]


@pytest.fixture
def base(tmp_path):
    """A root with links out of it and inside, and a pipe."""
    (tmp_path / "root" / "a").mkdir(parents=True)
    for name in ("1.png", "with blank.png", "cafe\u0301.png"):
        (tmp_path / "root" / "a" / name).write_bytes(b"")
    (tmp_path / "root" / "1.png").write_bytes(b"")
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "secret.png").write_bytes(b"")
    (tmp_path / "root" / "a" / "out.png").symlink_to(tmp_path / "away" / "secret.png")
    (tmp_path / "root" / "a" / "in.png").symlink_to("1.png")
    (tmp_path / "root" / "linked").symlink_to("a")
    (tmp_path / "root" / "away").symlink_to(tmp_path / "away")
    os.mkfifo(tmp_path / "root" / "a" / "pipe")
    return tmp_path / "root"


def one_by_one(root, given):
    """(paths, errors by row) of `guard`."""
    found, errors = [], {}
    for row, path in enumerate(given):
        try:
            found.append(guard(root, path, links=True))
        except ValueError as error:
            found.append(None)
            errors[row] = str(error)
    return found, errors


@pytest.mark.parametrize("listed", [10, 0])
def test_each_path_is_guarded_as_it_is_alone(base, monkeypatch, listed):
    monkeypatch.setattr(module, "FEW", listed)
    monkeypatch.setattr(module, "TIMES", 0)
    root = open_root(str(base))
    given = [*ODD, str(base / "a" / "1.png"), "/etc/passwd"]
    errors = {}
    column = pa.chunked_array([given[:5], given[5:]])
    found = guarded(root, column, lambda row, path, error: errors.update({row: str(error)}))
    assert (found.to_pylist(), errors) == one_by_one(root, given)
    assert len(errors) > 6


def test_usual_paths_are_not_asked_for_one_by_one(base, monkeypatch):
    monkeypatch.setattr(module, "guard", lambda *_, **__: pytest.fail("asked"))
    given = pa.array(["a/1.png", "a/with blank.png", "a/none.png", "none/1.png", "1.png"])
    assert guarded(open_root(str(base)), given, pytest.fail).equals(given)


def test_an_empty_cell_is_refused(base):
    rows = []
    given = pa.array(["a/1.png", None])
    found = guarded(open_root(str(base)), given, lambda row, path, error: rows.append((row, path)))
    assert (found.to_pylist(), rows) == (["a/1.png", None], [(1, "")])


@pytest.mark.parametrize("listed", [10, 0])
def test_links_out_are_those_that_each_path_is(base, monkeypatch, listed):
    monkeypatch.setattr(module, "FEW", listed)
    monkeypatch.setattr(module, "TIMES", 0)
    root = open_root(str(base))
    given = [path for path in one_by_one(root, ODD)[0] if path]
    found = leading_out(root, pa.array(given))
    assert found.tolist() == [leads_out(root, path, set()) for path in given]
    assert found.any()


def test_links_and_pipes_are_odd_and_so_is_what_is_too_much_to_list(base, monkeypatch):
    root = open_root(str(base))
    given = pa.array(["a/1.png", "a/out.png", "a/pipe", "1.png"])
    assert odd_files(root, given).tolist() == [False, True, True, False]
    monkeypatch.setattr(module, "FEW", 0)
    monkeypatch.setattr(module, "TIMES", 1)
    assert odd_files(root, given).tolist() == [True, True, True, True]


def test_nothing_is_odd_in_an_object_store():
    root = Store.at("memory://nothing")
    assert not np.any(odd_files(root, pa.array(["a/1.png"])))
    assert not np.any(leading_out(root, pa.array(["a/1.png"])))


def test_folders_are_what_is_before_the_last_slash():
    given = pa.array(["a/b/1.png", "a/1", "1.png"])
    assert folder_column(given).to_pylist() == ["a/b", "a", ""]
