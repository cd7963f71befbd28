"""SHARDS of a part of a plan: where the rows and the real images of each shard lie."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from discl_ray.core.arrays import Bools, Ints
from discl_ray.core.columns import as_dictionary, as_numpy, equal, places_in
from discl_ray.core.schema import SHARDS


def shards_of(
    plan: pa.Table, file: str, sources: tuple[str, pa.ChunkedArray] | None = None
) -> pa.Table:
    """SHARDS of the rows (`shard_id`, `sample_id`, `role`, `num_steps`) that a file of PLAN holds.

    A shard's rows lie together. `sources` is the file that has their real images, and its
    `sample_id`, in whose order the rows are; without it the shards do not say where those lie.
    """
    starts = run_starts(plan["shard_id"])
    ends = np.append(starts, plan.num_rows)[1:]
    steps = plan["num_steps"].to_numpy()
    is_probe = as_numpy(equal(plan["role"], "probe"))
    columns: dict[str, object] = {
        "shard_id": plan["shard_id"].take(pa.array(starts)),
        "plan": pa.repeat(file, len(starts)),
        "plan_first": starts,
        "rows": ends - starts,
        "new_sources": _sums(_is_new(plan["sample_id"]), starts),
        "probes": _sums(is_probe, starts),
        "unet_steps": _sums(steps, starts),
    }
    columns |= _where(plan["sample_id"], sources, starts, ends)
    return pa.table(columns).select(SHARDS.names).cast(SHARDS)


def run_starts(column: pa.ChunkedArray) -> Ints:
    """The rows at which another value begins than in the row before, row 0 included."""
    codes = as_dictionary(column).indices.to_numpy()
    changes = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    return np.append(np.zeros(min(1, len(codes)), np.int64), changes)


def _is_new(sample_ids: pa.ChunkedArray) -> Bools:
    """Whether a row is the first of its sample; shape (rows,)."""
    codes = as_dictionary(sample_ids).indices.to_numpy()
    # Codes are given in the order of first appearance.
    highest = np.maximum.accumulate(codes)
    return np.diff(highest, prepend=-1) > 0


def _sums(values: np.ndarray, starts: Ints) -> Ints:
    """The sum of a column over each shard."""
    if not len(starts):
        return starts
    return np.add.reduceat(values.astype(np.int64), starts)


def _where(
    sample_ids: pa.ChunkedArray,
    sources: tuple[str, pa.ChunkedArray] | None,
    starts: Ints,
    ends: Ints,
) -> dict[str, object]:
    """The columns of SHARDS that say where the real images lie."""
    if sources is None:
        nowhere = pa.nulls(len(starts))
        return dict.fromkeys(("sources", "sources_first", "sources_rows"), nowhere)
    file, known = sources
    places = places_in(sample_ids, known).to_numpy()
    first = places[starts]
    return {
        "sources": pa.repeat(file, len(starts)),
        "sources_first": first,
        "sources_rows": places[ends - 1] - first + 1,
    }
