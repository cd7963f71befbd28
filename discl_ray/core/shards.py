"""A shard as one row, so that Ray Data can neither split nor merge it.

Ray Data may divide blocks by size and bundle them by batch size, but never touches a row. The
shard's table travels through every operator as a list of structs in one cell, and is unpacked
inside.
"""

from __future__ import annotations

import pyarrow as pa


def pack(shard_id: str, table: pa.Table) -> pa.Table:
    """A shard's table as one row (`shard_id`, `rows`)."""
    structs = table.to_struct_array()
    rows = pa.concat_arrays(structs.chunks) if structs.num_chunks != 1 else structs.chunk(0)
    return pa.table(
        {
            "shard_id": [shard_id],
            "rows": pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows),
        }
    )


def unpack(row: pa.Table) -> tuple[str, pa.Table]:
    """The shard's id and table from its row."""
    rows = row["rows"].combine_chunks()
    chunk = rows.chunk(0) if isinstance(rows, pa.ChunkedArray) else rows
    return row["shard_id"][0].as_py(), pa.Table.from_struct_array(chunk.flatten())
