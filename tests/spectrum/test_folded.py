"""The record of a fold is read back as it was written, or not at all."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from discl_ray.core.storage import Store
from discl_ray.spectrum.folded import FILES, NOTHING, RECORD, TABLE, Fold, named, newest_fold


def written(store: Store, rows: int = 1) -> Fold:
    table = b"x" * rows
    columns = {field.name: pa.nulls(1, field.type) for field in FILES}
    made = Fold(named(table, TABLE), rows, "0" * 64, rows, pa.table(columns, schema=FILES))
    store.write(made.table, table)
    store.write(named(made.as_json(), RECORD), made.as_json())
    return made


def test_the_newest_record_is_read_back(tmp_path):
    store = Store.at(tmp_path)
    assert newest_fold(store) is NOTHING
    written(store)
    made = written(store, 2)
    found = newest_fold(store)
    assert found == replace(made, files=found.files, record=named(made.as_json(), RECORD))
    assert found.files.equals(made.files)


@pytest.mark.parametrize("how", ["garbled", "empty", "other columns", "bit", "table gone", "cut"])
def test_one_that_is_not_whole_is_ignored(tmp_path, how):
    store = Store.at(tmp_path)
    older = written(store)
    made = written(store, 2)
    record = named(made.as_json(), RECORD)
    if how == "garbled":
        store.write(record, b"\xff{")
    elif how == "empty":
        store.write(record, b"")
    elif how == "other columns":
        value = json.loads(made.as_json())
        value["columns"].append("later")
        store.delete(record)
        data = json.dumps(value).encode()
        store.write(named(data, RECORD), data)
    elif how == "bit":
        store.write(record, made.as_json().replace(b'"size": 2', b'"size": 3'))
    elif how == "table gone":
        store.delete(made.table)
    else:
        store.write(made.table, b"x")
    assert newest_fold(store).table == older.table
