"""Files of a run's folder are compared with what they should hold."""

import pyarrow as pa
import pytest

from discl_ray.core.schema import IMAGE
from discl_ray.core.storage import Store
from discl_ray.synthesize.written import holds, holds_mapping, holds_samples, holds_values, is_sound


@pytest.fixture
def store(tmp_path):
    return Store.at(tmp_path)


def test_a_damaged_file_is_not_sound_and_is_said_to_be_written_again(store, capsys):
    assert not is_sound(store, "t.parquet")
    store.write_table("t.parquet", pa.table({"n": [1]}))
    assert is_sound(store, "t.parquet")
    assert capsys.readouterr().out == ""
    store.write("t.parquet", b"PAR1")
    assert not is_sound(store, "t.parquet")
    assert "t.parquet: is cut short or garbled, and written again" in capsys.readouterr().out


def test_json_and_yaml_are_asked_for_what_they_hold(store):
    store.write_json("a.json", {"a": 1, "b": 2})
    assert holds_values(store, "a.json", {"a": 1})
    assert not holds_values(store, "a.json", {"a": 2})
    assert not holds_values(store, "b.json", {})
    store.write("c.yaml", b"a: 1")
    store.write("d.yaml", b"[1")
    assert [holds_mapping(store, name) for name in ("c.yaml", "d.yaml")] == [True, False]


def test_a_table_without_later_columns_is_the_same_table(store):
    table = pa.table({"a": [1], "b": [2]})
    store.write_table("t.parquet", table.select(["a"]))
    assert holds(store, "t.parquet", table)
    assert not holds(store, "t.parquet", table.select(["b"]))
    assert not holds(store, "t.parquet", pa.table({"a": [2]}))


def test_samples_are_compared_without_their_bytes(store, capsys):
    def samples(ids, paths, data=None):
        images = [{"bytes": data, "path": path} for path in paths]
        return pa.table({"sample_id": ids, "image": pa.array(images, IMAGE)})

    there = samples(["a", "b"], ["x", None], b"bytes")
    assert not holds_samples(store, "s.parquet", there)
    store.write_table("s.parquet", there)
    assert holds_samples(store, "s.parquet", samples(["a", "b"], ["x", None]))
    for other in (samples(["a", "b"], ["y", None]), samples(["a", "c"], ["x", None])):
        assert not holds_samples(store, "s.parquet", other)
    capsys.readouterr()
    store.write("s.parquet", b"PAR1")
    assert not holds_samples(store, "s.parquet", there)
    assert "s.parquet: is cut short" in capsys.readouterr().out
