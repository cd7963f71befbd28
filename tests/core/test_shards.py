"""A shard travels as one row and comes out as it went in; its rows lie where it says."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.schema import SHARDS
from discl_ray.core.shards import Shard, Slice, pack, unpack
from discl_ray.core.storage import Store, parquet_bytes
from discl_ray.errors import IntegrityError


def row_of(shard_id, sources="sources/0.parquet"):
    values = dict.fromkeys(SHARDS.names, 0)
    values |= {"shard_id": shard_id, "plan": "plan/0.parquet", "plan_first": 3, "rows": 2}
    values |= {"sources": sources, "sources_first": 1, "sources_rows": 4}
    return pa.Table.from_pylist([values], schema=SHARDS)


@pytest.mark.parametrize("chunks", [[[1, 2, 3]], [[1], [2, 3]]])
def test_a_shard_is_one_row_and_comes_back(chunks):
    numbers = pa.chunked_array(chunks, pa.int64())
    table = pa.table({"n": numbers, "text": numbers.cast(pa.string())})
    packed = pack(row_of("s1"), table)
    assert packed.num_rows == 1
    assert Shard.of(packed) == Shard.of(row_of("s1"))
    row, back = unpack(packed)
    assert row.equals(row_of("s1"))
    assert back.equals(table.combine_chunks())


def test_blocks_can_be_joined_and_cut_in_between():
    shards = [pack(row_of(name), pa.table({"n": [ord(name)] * 3})) for name in "ab"]
    joined = pa.concat_tables(shards)
    names = [Shard.of(unpack(joined.slice(i, 1))[0]).shard_id for i in range(2)]
    assert names == ["a", "b"]
    assert unpack(joined.slice(1, 1))[1]["n"].to_pylist() == [98] * 3


def test_a_shard_says_where_its_rows_and_its_real_images_lie():
    shard = Shard.of(row_of("s"))
    assert shard.plan == Slice("plan/0.parquet", 3, 2)
    assert shard.sources == Slice("sources/0.parquet", 1, 4)
    assert Shard.of(row_of("s", sources=None)).sources is None


@given(st.sets(st.integers(1, 19), max_size=6), st.integers(0, 20), st.integers(0, 20))
def test_a_slice_is_the_same_rows_whatever_the_row_groups(tmp_path_factory, begins, first, end):
    first, end = min(first, end), max(first, end)
    store = Store.at(tmp_path_factory.mktemp("slices"))
    table = pa.table({"n": range(20), "m": range(20)})
    store.write("t.parquet", parquet_bytes(table, [0, *sorted(begins)]))
    part = Slice("t.parquet", first, end - first)
    assert part.read(store).equals(table.slice(first, end - first))
    assert part.read(store, ["m"]).column_names == ["m"]


def test_a_file_with_fewer_rows_is_named(tmp_path):
    store = Store.at(tmp_path)
    store.write_table("t.parquet", pa.table({"n": [1]}))
    with pytest.raises(IntegrityError, match=r"t\.parquet.*1 rows instead of 3.*; delete it"):
        Slice("t.parquet", 1, 2).read(store)
    with pytest.raises(IntegrityError, match=r"u\.parquet: is gone"):
        Slice("u.parquet", 0, 1).read(store)
