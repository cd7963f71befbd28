"""A shard as one row, so that Ray Data can neither split nor merge it.

Ray Data may divide blocks by size and bundle them by batch size, but never touches a row. On its
way to a generator a shard is its row of SHARDS, which says where the worker finds its part of the
plan and its real images. Behind the generator its table, with images, is one more cell of that row:
a list of structs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from discl_ray.core.storage import Store, open_parquet

CELL = "table"
"""Column of a packed shard that holds its table."""


class Slice(NamedTuple):
    """Consecutive rows of a Parquet file in a run's folder."""

    file: str
    first: int
    """Number of its first row in the file."""
    rows: int

    def read(self, run: Store, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows; of the file, only the row groups that hold one of them are read.

        Raises IntegrityError if the file is gone, damaged or too short.
        """
        wanted = None if columns is None else list(columns)
        with run.reading(self.file), run.filesystem.open_input_file(run.path(self.file)) as source:
            file = open_parquet(source)
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            ends = np.cumsum(sizes)
            end = self.first + self.rows
            if end > file.metadata.num_rows:
                raise ValueError(f"{file.metadata.num_rows} rows instead of {end}")
            begins = ends - sizes
            groups = np.flatnonzero((ends > self.first) & (begins < end))
            # One thread, for the reason given in `Store.read_table`.
            table = file.read_row_groups(groups.tolist(), wanted, use_threads=False)
            before = begins[groups[0]] if len(groups) else self.first
            return table.slice(self.first - before, self.rows)


class Shard(NamedTuple):
    """Where what a shard is made from lies."""

    shard_id: str
    plan: Slice
    sources: Slice | None
    """None in a run of an earlier version, whose sources lie in one file in no order."""

    @classmethod
    def of(cls, row: pa.Table) -> Shard:
        """From a row of SHARDS, with or without a table in it."""
        (values,) = row.drop([CELL] if CELL in row.column_names else []).to_pylist()
        plan = Slice(values["plan"], values["plan_first"], values["rows"])
        sources = None
        if values["sources"] is not None:
            first, rows = values["sources_first"], values["sources_rows"]
            sources = Slice(values["sources"], first, rows)
        return cls(values["shard_id"], plan, sources)


def pack(row: pa.Table, table: pa.Table) -> pa.Table:
    """A shard's row with its table in one more cell."""
    structs = table.to_struct_array()
    single = structs.num_chunks == 1  # which is not copied
    rows = structs.chunk(0) if single else pa.concat_arrays(structs.chunks)
    bounds = pa.array([0, len(rows)], pa.int32())
    return row.append_column(CELL, pa.ListArray.from_arrays(bounds, rows))


def unpack(packed: pa.Table) -> tuple[pa.Table, pa.Table]:
    """A shard's row without its table, and the table."""
    cells = packed[CELL].combine_chunks()
    if isinstance(cells, pa.ChunkedArray):
        cells = cells.chunk(0)
    return packed.drop([CELL]), pa.Table.from_struct_array(cells.flatten())
