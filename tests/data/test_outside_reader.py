"""What a reader of the user's own lists is checked."""

import sys
import types

import pyarrow as pa
import pytest

from discl_ray.core.storage import Store
from discl_ray.data import list_dataset
from discl_ray.data.config import OutsideConfig
from discl_ray.data.listing import Listing, listing_table, read_files
from discl_ray.errors import DataError

ROWS = [{"sample_id": f"{i}.png", "path": f"{i}.png", "class_key": "ab"[i % 2]} for i in range(4)]


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Makes a module's function return something, and lists by it."""

    def listed(result):
        module = types.ModuleType("reader_of_test")
        module.read = lambda config, seed: result
        monkeypatch.setitem(sys.modules, "reader_of_test", module)
        return list_dataset(OutsideConfig(name="reader_of_test:read", root=str(tmp_path)), 0)

    return listed


def listing(tmp_path, table):
    return Listing(table=table, root=Store.at(str(tmp_path)), read=read_files, stamp="1")


def test_a_listing_is_taken_as_it_is(reader, tmp_path):
    found = reader(listing(tmp_path, listing_table(ROWS)))
    assert found.table["sample_id"].to_pylist() == ["0.png", "1.png", "2.png", "3.png"]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda t: t.drop_columns(["group"]), "no column 'group'"),
        (lambda t: t.set_column(2, "row", pa.array(list("abcd"))), "'row' is string; int64"),
        (lambda t: pa.concat_tables([t, t]), "sample_id '0.png' is duplicated"),
        (lambda t: t.set_column(3, "class_key", pa.nulls(4, pa.string())), "row has no class_key"),
    ],
)
def test_a_table_that_is_no_listing_is_refused(reader, tmp_path, wrong, why):
    with pytest.raises(DataError, match=f"data.name = 'reader_of_test:read': .*{why}"):
        reader(listing(tmp_path, wrong(listing_table(ROWS))))


def test_something_else_is_refused_by_its_type(reader):
    with pytest.raises(DataError, match=r"returned a list; a discl_ray\.Listing is needed"):
        reader(ROWS)
