"""A shard travels as one row and comes out as it went in."""

import pyarrow as pa
import pytest

from discl_ray.core.shards import pack, unpack


@pytest.mark.parametrize("chunks", [[[1, 2, 3]], [[1], [2, 3]]])
def test_a_shard_is_one_row_and_comes_back(chunks):
    numbers = pa.chunked_array(chunks, pa.int64())
    table = pa.table({"n": numbers, "text": numbers.cast(pa.string())})
    packed = pack("s1", table)
    assert packed.num_rows == 1
    shard_id, back = unpack(packed)
    assert shard_id == "s1"
    assert back.equals(table.combine_chunks())


def test_blocks_can_be_joined_and_cut_in_between():
    shards = [pack(name, pa.table({"n": [ord(name)] * 3})) for name in "ab"]
    joined = pa.concat_tables(shards)
    names = [unpack(joined.slice(i, 1))[0] for i in range(2)]
    assert names == ["a", "b"]
    assert unpack(joined.slice(1, 1))[1]["n"].to_pylist() == [98] * 3
