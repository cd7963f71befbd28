"""What a reader of the user's own lists is checked."""

import sys
import types
from dataclasses import replace

import pyarrow as pa
import pytest

from discl_ray.core.storage import Store
from discl_ray.data.config import OutsideConfig
from discl_ray.data.listing import Listing, listing_table, read_files
from discl_ray.data.outside import list_outside
from discl_ray.errors import ConfigError, DataError, ImageError

ROWS = [{"sample_id": f"{i}.png", "path": f"{i}.png", "class_key": "ab"[i % 2]} for i in range(4)]


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Makes a module's function return something, and lists by it."""

    def listed(result):
        module = types.ModuleType("reader_of_test")
        module.read = lambda config, seed: result
        monkeypatch.setitem(sys.modules, "reader_of_test", module)
        return list_outside(OutsideConfig(name="reader_of_test:read", root=str(tmp_path)), 0)

    return listed


def listing(tmp_path, table):
    return Listing(table=table, root=Store.at(str(tmp_path)), read=read_files, stamp="1")


def test_a_listing_is_taken_as_it_is(reader, tmp_path):
    found = reader(listing(tmp_path, listing_table(ROWS)))
    assert found.table["sample_id"].to_pylist() == ["0.png", "1.png", "2.png", "3.png"]


def test_an_edited_reader_lists_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = (
        "from discl_ray.core.storage import Store\n"
        "from discl_ray.data.listing import Listing, listing_table, read_files\n"
        f"ROWS = {ROWS!r}\n"
        "def read(config, seed):\n"
        "    root = Store.at(config.root)\n"
        "    return Listing(table=listing_table(ROWS), root=root, read=read_files, stamp='1')\n"
    )
    file = tmp_path / "edited_reader.py"
    config = OutsideConfig(name="edited_reader:read", root=str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    stamps = []
    for text in (source, source, f"{source}# edited\n"):
        file.write_text(text)
        stamps.append(list_outside(config, 0).stamp)
    del sys.modules["edited_reader"]
    assert stamps[0] == stamps[1] != stamps[2]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda t: t.drop_columns(["group"]), "no column 'group'"),
        (lambda t: t.set_column(2, "row", pa.array(list("abcd"))), "'row' is string; int64"),
        (lambda t: pa.concat_tables([t, t]), "sample_id '0.png' is duplicated"),
        (lambda t: t.set_column(3, "class_key", pa.nulls(4, pa.string())), "row has no class_key"),
        (lambda t: t.set_column(4, "split", pa.array(["dev", None] * 2)), "split 'dev' is none of"),
    ],
)
def test_a_table_that_is_no_listing_is_refused(reader, tmp_path, wrong, why):
    with pytest.raises(DataError, match=f"data.name = 'reader_of_test:read': .*{why}"):
        reader(listing(tmp_path, wrong(listing_table(ROWS))))


def test_something_else_is_refused_by_its_type(reader):
    with pytest.raises(DataError, match=r"returned a list; a discl_ray\.Listing is needed"):
        reader(ROWS)


def raises(root, rows):
    raise RuntimeError("lost")


def raises_late(root, rows):
    yield b"0"
    raise RuntimeError("lost")


@pytest.mark.parametrize(
    ("read", "kind", "why"),
    [
        (raises, ConfigError, r"raised RuntimeError: lost \(.*test_outside\.py, line \d+\)"),
        (raises_late, ConfigError, r"raised RuntimeError: lost \(.*test_outside\.py, line \d+\)"),
        (lambda root: [], ConfigError, r"raised TypeError: .* \(defined in .*test_outside\.py"),
        (lambda root, rows: None, DataError, "returned a NoneType; bytes or"),
        (lambda root, rows: ["0"] * 4, DataError, "gave a str; bytes or"),
        (lambda root, rows: [b"0"] * 3, DataError, "gave 3 for 4 rows"),
        (lambda root, rows: [b"0"] * 5, DataError, "gave more than 4"),
    ],
)
def test_what_reads_the_images_is_checked_as_it_reads(reader, tmp_path, read, kind, why):
    found = reader(replace(listing(tmp_path, listing_table(ROWS)), read=read))
    with pytest.raises(kind, match=f"data.name = 'reader_of_test:read': its Listing.read: {why}"):
        list(found.read(found.root, found.table))


def test_images_are_read_as_they_are_given(reader, tmp_path):
    found = reader(listing(tmp_path, listing_table(ROWS)))
    (tmp_path / "1.png").write_bytes(b"one")
    kinds = [type(data) for data in found.read(found.root, found.table)]
    assert kinds == [ImageError, bytes, ImageError, ImageError]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def read(config, seed): raise SystemExit(0)", "ended the program"),
        ("def read(config, seed): raise KeyError('x')", r"raised KeyError: 'x' \(.*line 1\)"),
        ("def read(config): pass", r"raised TypeError: .*\(defined in .*line 1\)"),
    ],
)
def test_a_reader_that_fails_is_named(tmp_path, monkeypatch, source, why):
    (tmp_path / "failing_reader.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "failing_reader", raising=False)
    with pytest.raises(ConfigError, match=f"^data.name = 'failing_reader:read': {why}"):
        list_outside(OutsideConfig(name="failing_reader:read", root=str(tmp_path)), 0)
    del sys.modules["failing_reader"]
