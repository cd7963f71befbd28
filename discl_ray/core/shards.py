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
    single = structs.num_chunks == 1  # which is not copied
    rows = structs.chunk(0) if single else pa.concat_arrays(structs.chunks)
    bounds = pa.array([0, len(rows)], pa.int32())
    cell = pa.ListArray.from_arrays(bounds, rows)
    return pa.table({"shard_id": [shard_id], "rows": cell})


def unpack(row: pa.Table) -> tuple[str, pa.Table]:
    """The shard's id and table from its row."""
    shard_id = row["shard_id"][0].as_py()
    cells = row["rows"].combine_chunks()
    if isinstance(cells, pa.ChunkedArray):
        cells = cells.chunk(0)
    return shard_id, pa.Table.from_struct_array(cells.flatten())
