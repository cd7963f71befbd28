"""What a reader of the user's own lists is checked."""

import sys
import types

import pyarrow as pa
import pytest

from discl_ray.core.storage import Store
from discl_ray.data.config import OutsideConfig
from discl_ray.data.listing import Listing, listing_table, read_files
from discl_ray.data.outside import list_outside
from discl_ray.errors import DataError

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
