"""A shard laid out by hand: its real images, its part of the plan, and its row of SHARDS."""

from __future__ import annotations

import pyarrow as pa

from discl_ray.core.schema import SHARDS
from discl_ray.core.storage import Store

PLAN_PART, SOURCES_PART = "plan/000000.parquet", "sources/000000.parquet"


def write_sources(run: Store, sources: pa.Table) -> None:
    """Writes the real images of one part."""
    run.write_table(SOURCES_PART, sources)


def row_of_sources(count: int, plan_rows: int = 0) -> pa.Table:
    """A row of SHARDS whose real images are all those that were written."""
    values = dict.fromkeys(SHARDS.names, 0)
    values |= {"shard_id": "s", "plan": PLAN_PART, "rows": plan_rows}
    values |= {"sources": SOURCES_PART, "sources_rows": count}
    return pa.Table.from_pylist([values], schema=SHARDS)


def shard_row(run: Store, plan: pa.Table) -> pa.Table:
    """Writes PLAN rows as one shard and returns its row of SHARDS; sources may be in any order."""
    run.write_table(PLAN_PART, plan)
    sources = run.read_table(SOURCES_PART, ["sample_id"])
    return row_of_sources(sources.num_rows, plan.num_rows)
