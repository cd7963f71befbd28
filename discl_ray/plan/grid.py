"""Hard samples x λ x replicas -> PLAN: every image to make, with its id, its seed and its shard.

The sources are taken in blocks (`source_blocks`), and the plan of a block depends on no other
block, so that a plan of any length is made, written and read a block at a time. Within a block the
rows, ordered by source, are cut once into shards of about equal work (UNet steps, not rows). What
is in a shard never changes afterwards: a rerun takes whole uncommitted shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core.arrays import Ints
from discl_ray.core.columns import (
    as_dictionary,
    as_numpy,
    between,
    both,
    either,
    equal,
    fill_null,
    is_in,
    negate,
    total,
)
from discl_ray.core.ids import stable_id, stable_ids, stable_seeds
from discl_ray.core.lam import num_denoising_steps
from discl_ray.core.schema import BROKEN, PLAN
from discl_ray.plan.config import PlanConfig
from discl_ray.plan.prompts import Prompts

SOURCE_COLUMNS = ("sample_id", "label", "class_name", "split", "sha256")

GID_COLUMNS = (
    "sample_id",
    "source_sha256",
    "prompt",
    "negative_prompt",
    "filter_prompt",
    "lam_pct",
    "seed",
    "num_steps",
)
"""What decides an image besides the generator, in the order in which it is hashed."""

BLOCK_ROWS = 65_536
"""Rows of a block's plan, at most: about 20 MB while it is made."""

BLOCK_SOURCES = 500
"""Sources of a block, at most: their images, 50 MB at 100 kB each, are written in one go."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is made of every source, and what ids and seeds are computed from."""

    config: PlanConfig
    prompts: Prompts
    fingerprint: str
    """Of the generator."""
    base_seed: int

    def replicas(self, split: str) -> int:
        """Images per level of a source of a split."""
        return self.config.probe_replicas if split == "val" else self.config.replicas

    def block_sizes(self, sources: int) -> list[int]:
        """How many sources each block has: all the same number, the last perhaps fewer."""
        replicas = max(self.config.replicas, self.config.probe_replicas)
        rows = replicas * len(self.config.levels)
        size = max(1, min(BLOCK_SOURCES, BLOCK_ROWS // rows))
        whole, rest = divmod(sources, size)
        return [size] * whole + [rest] * (rest > 0)


def source_blocks(hard: pa.Table, sizes: Iterable[int]) -> Iterator[pa.Table]:
    """The sources of each block: consecutive rows of `hard`."""
    first = 0
    for size in sizes:
        yield hard.slice(first, size)
        first += size


def plan_of_sources(sources: pa.Table, grid: Grid) -> pa.Table:
    """The PLAN of one block of hard samples (SAMPLES rows: train sources, val sources for probes).

    seed = H(base_seed, sample, source bytes, replica, attempt): all λ of a replica start from the
    same noise. gid = H(sample, source bytes, prompts, λ, seed, steps, generator fingerprint), so
    equal ids mean equal images.

    Raises ValueError if a test row is among the sources.
    """
    _check_splits(sources)
    pairs = _Pairs.of(sources, grid)
    sample_id = _repeated(sources["sample_id"], pairs.source)
    sha256 = _repeated(sources["sha256"], pairs.source)
    # The last number is the attempt.
    seed = stable_seeds(grid.base_seed, sample_id, sha256, pa.array(pairs.replica), 0)
    of_pairs: dict[str, pa.Array] = {
        "sample_id": sample_id,
        "label": _repeated(sources["label"], pairs.source),
        "role": _roles(sources["split"]).take(pa.array(pairs.source)),
        "replica": pa.array(pairs.replica, pa.int32()),
        "seed": seed,
        "source_sha256": sha256,
        **_prompt_columns(sources["class_name"], pairs, grid.prompts),
    }
    levels = grid.config.levels
    steps = [num_denoising_steps(lam_pct, grid.config.num_steps) for lam_pct in levels]
    count = len(pairs.source)
    # Each pair at every level; levels ascend.
    pair_of_row = pa.array(np.repeat(np.arange(count), len(levels)))
    columns = {name: values.take(pair_of_row) for name, values in of_pairs.items()}
    columns["lam_pct"] = pa.array(np.tile(levels, count), pa.int32())
    columns["num_steps"] = pa.array(np.tile(steps, count), pa.int32())
    columns["attempt"] = pa.array(np.zeros(count * len(levels)), pa.int32())
    return _plan(pa.table(columns), grid)


def make_plan(
    hard: pa.Table, config: PlanConfig, prompts: Prompts, *, fingerprint: str, base_seed: int
) -> pa.Table:
    """The PLAN of hard samples in one table; see `plan_of_sources`."""
    grid = Grid(config=config, prompts=prompts, fingerprint=fingerprint, base_seed=base_seed)
    return plan_of_blocks(hard, grid)


def plan_of_blocks(hard: pa.Table, grid: Grid) -> pa.Table:
    """The PLAN of all blocks of hard samples in one table; see `plan_of_sources`."""
    blocks = source_blocks(hard, grid.block_sizes(hard.num_rows))
    parts = [plan_of_sources(sources, grid) for sources in blocks]
    return pa.concat_tables([PLAN.empty_table(), *parts])


class _Pairs(NamedTuple):
    """Sources x replicas, ordered by source; shape (pairs,) each."""

    source: Ints
    """Row of the source."""
    replica: Ints

    @classmethod
    def of(cls, sources: pa.Table, grid: Grid) -> _Pairs:
        """Every replica of every source."""
        splits = as_dictionary(sources["split"])
        per_split = [grid.replicas(split) for split in splits.dictionary.to_pylist()]
        replicas = np.array(per_split, np.int64)[splits.indices.to_numpy()]
        source = np.repeat(np.arange(len(replicas)), replicas)
        firsts = np.cumsum(replicas) - replicas
        replica = np.arange(len(source)) - firsts[source]
        return cls(source, replica)


def _check_splits(sources: pa.Table) -> None:
    """Raises ValueError if a source is of another split than train and val."""
    allowed = is_in(sources["split"], ["train", "val"])
    others = sources.filter(negate(allowed))
    if others.num_rows:
        sample_id = others["sample_id"][0].as_py()
        split = others["split"][0].as_py()
        raise ValueError(f"sample {sample_id} is of split {split}: nothing is made from it")


def _repeated(column: pa.ChunkedArray, rows: Ints) -> pa.Array:
    """The values at some rows; texts as a dictionary, so that each is held once."""
    taken = pa.array(rows)
    if not pa.types.is_string(column.type):
        return column.combine_chunks().take(taken)
    return as_dictionary(column).take(taken)


def _roles(splits: pa.ChunkedArray) -> pa.DictionaryArray:
    """PLAN's `role` of sources of train and val."""
    is_val = as_numpy(equal(splits, "val"))
    return pa.DictionaryArray.from_arrays(is_val.astype(np.int32), ["train", "probe"])


def _prompt_columns(
    class_names: pa.ChunkedArray, pairs: _Pairs, prompts: Prompts
) -> dict[str, pa.Array]:
    """The three prompts of each pair; each distinct one is made once."""
    classes = as_dictionary(class_names)
    names = classes.dictionary.to_pylist()
    of_pair = classes.indices.to_numpy()[pairs.source]
    both_columns = np.column_stack([of_pair, pairs.replica])
    distinct, place = np.unique(both_columns, axis=0, return_inverse=True)
    generation = [prompts.generation(names[code], replica) for code, replica in distinct.tolist()]
    filtering = [prompts.filter(name) for name in names]
    everywhere = np.zeros(len(of_pair), np.int32)
    return {
        "prompt": _coded(place.reshape(-1), generation),
        "negative_prompt": _coded(everywhere, [prompts.config.negative]),
        "filter_prompt": _coded(of_pair, filtering),
    }


def _coded(codes: NDArray[np.integer], texts: list[str]) -> pa.DictionaryArray:
    """A column of texts by their places in a list."""
    indices = pa.array(codes, pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(texts, pa.string()))


def next_attempt(
    made: pa.Table, config: PlanConfig, *, fingerprint: str, base_seed: int
) -> pa.Table:
    """The PLAN of the next attempt: rows of one round with a low text_sim or a bad image.

    `made` has PLAN's columns and `status`, `error` and `text_sim`, in any order. Only the attempt
    changes and, with it, the seed. Rows whose source cannot be read are left out.
    """
    # Scores are stored in float32.
    limit = float(np.float32(config.until_text_sim))  # pyright: ignore[reportArgumentType]
    low = both(equal(made["status"], "ok"), between(made["text_sim"], float("-inf"), limit))
    again = either(fill_null(low, False), fill_null(equal(made["error"], BROKEN), False))
    rows = made.select(PLAN.names).filter(again)
    attempt = pa.array(rows["attempt"].to_numpy() + 1, pa.int32())
    seed = stable_seeds(
        base_seed, rows["sample_id"], rows["source_sha256"], rows["replica"], attempt
    )
    columns = {name: rows[name] for name in PLAN.names}
    columns |= {"attempt": attempt, "seed": seed}
    return _with_ids(pa.table(columns), fingerprint, config.shard_steps)


def _plan(rows: pa.Table, grid: Grid) -> pa.Table:
    """PLAN of rows that lack their ids."""
    return _with_ids(rows, grid.fingerprint, grid.config.shard_steps)


def _with_ids(rows: pa.Table, fingerprint: str, shard_steps: int) -> pa.Table:
    """PLAN of rows that lack their ids, whose order is kept."""
    gids = stable_ids(*(rows[name] for name in GID_COLUMNS), fingerprint)
    starts = shard_starts(rows["num_steps"].to_numpy(), shard_steps)
    columns = {name: rows[name] for name in rows.column_names}
    columns["gid"] = gids
    columns["shard_id"] = _shard_ids(gids, starts)
    return pa.table(columns).select(PLAN.names).cast(PLAN)


def shard_starts(steps: NDArray[np.integer], shard_steps: int) -> Ints:
    """The rows at which shards begin: rows fill a shard until it has `shard_steps` steps.

    `steps` are those of each row, shape (rows,).
    """
    up_to = np.cumsum(steps, dtype=np.int64)
    starts: list[int] = []
    start, before = 0, 0
    while start < len(steps):
        starts.append(start)
        full = np.searchsorted(up_to, before + shard_steps)  # the row that fills it, and is in it
        start = int(full) + 1
        before = int(up_to[min(start, len(steps)) - 1])
    return np.array(starts, np.int64)


def _shard_ids(gids: pa.Array, starts: Ints) -> pa.DictionaryArray:
    """`shard_id` of each row: the hash of its shard's gids."""
    bounds = np.append(starts, len(gids))
    names = gids.to_pylist()
    shard_ids: list[str] = []
    for start, end in pairwise(bounds.tolist()):
        shard_ids.append(stable_id(*names[start:end])[:16])
    codes = np.repeat(np.arange(len(starts)), np.diff(bounds))
    return _coded(codes, shard_ids)


@dataclass(frozen=True, kw_only=True)
class PlanSize:
    """How much a plan makes."""

    rows: int
    sources: int
    shards: int
    unet_steps: int

    @classmethod
    def of(cls, plan: pa.Table) -> PlanSize:
        """Counts of a PLAN table."""
        return cls(
            rows=plan.num_rows,
            sources=len(plan["sample_id"].unique()),
            shards=len(plan["shard_id"].unique()),
            unet_steps=total(plan["num_steps"]),
        )
