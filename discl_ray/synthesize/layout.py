"""What a run of phase 1 writes before its first image: all that it is made from."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from discl_ray.cluster.map_blocks import map_blocks
from discl_ray.config import dump_config
from discl_ray.core.arrays import Ints
from discl_ray.core.columns import fill_null, lengths, member, total
from discl_ray.core.run_directory import CONFIG, MANIFEST, PLAN_FILE, SHARDS_FILE
from discl_ray.core.schema import SAMPLES, SHARDS
from discl_ray.core.storage import ROW_GROUP, Store, parquet_bytes
from discl_ray.data import read_images
from discl_ray.errors import IntegrityError
from discl_ray.plan.grid import Grid, plan_of_sources, source_blocks
from discl_ray.plan.shards import shards_of
from discl_ray.process.calls import AGAIN
from discl_ray.score.model_folder import scorer_fingerprint
from discl_ray.spectrum.made_with import FILE as MADE_WITH
from discl_ray.spectrum.made_with import MadeWith, installed, write_made_with
from discl_ray.spectrum.reuse import FILE as REUSED_FILE
from discl_ray.spectrum.reuse import REUSED, committed_images, gids_as_bytes
from discl_ray.spectrum.samples import SAMPLES_AT
from discl_ray.synthesize.old_layout import check_whole_plan, write_whole_plan, write_whole_sources
from discl_ray.synthesize.planned import (
    Planned,
    open_planned,
    plan_part,
    shards_file,
    sources_part,
    write_part,
)
from discl_ray.synthesize.run import Run
from discl_ray.synthesize.written import holds, holds_mapping, holds_samples, holds_values, is_sound

log = logging.getLogger(__name__)

RUNS = ("generate-", "preview-")
"""How the names of folders with images begin."""

GROUP_BYTES = 256 * 2**10
"""Image bytes after which a row group of sources may end where a shard's sources begin or end: a
shard reads at most about so much on either side of its own."""


def lay_out(run: Run) -> Run:
    """Writes what a run is made from; the table of its shards last, so that it has the rest then.

    The files are sources and plan in parts, configuration, place of the samples, images to take
    over, and fingerprints. All follow from data and configuration, so a damaged one is written
    again.

    Returns the run. Raises DataError if there is nothing to make, IntegrityError if the directory
    holds another plan, StorageError if it cannot be written.
    """
    store = run.store
    old = store.exists(PLAN_FILE)
    before = None if old else open_planned(store)
    planned = check_whole_plan(run) if old else _is_planned(run, before)
    shards = None
    if old:
        write_whole_sources(run)
    else:
        shards = _write_parts(run, before)
    place = {"directory": run.samples.store.name}
    if not holds_values(store, SAMPLES_AT, place):
        store.write_json(SAMPLES_AT, place)
    if not (planned and holds_mapping(store, CONFIG)):
        store.write(CONFIG, dump_config(run.config).encode())
    if not (planned and is_sound(store, REUSED_FILE)):
        store.write_table(REUSED_FILE, find_reusable(run))
    if not is_sound(store, MADE_WITH):
        scorer = scorer_fingerprint(run.config.scorer)
        made = MadeWith(generator=run.fingerprint, scorer=scorer, versions=installed())
        write_made_with(store, made)
    if planned:
        return run
    if shards is None:
        write_whole_plan(run)
    else:
        store.write_table(SHARDS_FILE, shards)
    return run


def find_reusable(run: Run) -> pa.Table:
    """REUSED: planned images that another run of this name has made, by ascending gid.

    What is damaged there is left out, and made again here.
    """
    runs = run.store.parent
    tables = [REUSED.empty_table()]
    for directory in runs.folders():
        if directory.startswith(RUNS):
            images = committed_images(runs.within(directory))
            same = pa.repeat(directory, images.num_rows)
            tables.append(images.append_column("directory", same).select(REUSED.names))
    found = pa.concat_tables(tables)
    if not found.num_rows:  # most runs: their plan need not be looked at
        return found
    gids = gids_as_bytes(found["gid"])
    # Stable: of several runs that have an image the last comes last.
    order = np.argsort(gids, kind="stable")
    ascending = gids[order]
    is_planned = np.zeros(len(order), bool)
    for sources in source_blocks(run.hard, run.grid.block_sizes(run.hard.num_rows)):
        planned = gids_as_bytes(plan_of_sources(sources, run.grid)["gid"])
        places = np.searchsorted(ascending, planned, "right") - 1  # the last of equal ones
        is_found = ascending[places] == planned
        is_planned[places[is_found]] = True
    return found.take(pa.array(order[is_planned]))


@dataclass(frozen=True)
class _Block:
    """A block of sources and what is planned of it."""

    number: int
    sources: pa.Table
    """SAMPLES or LOCATED."""
    plan: pa.Table
    """PLAN."""

    @classmethod
    def of(cls, number: int, sources: pa.Table, grid: Grid) -> _Block:
        """The plan of a block depends on no other."""
        return cls(number, sources, plan_of_sources(sources, grid))

    @property
    def shards(self) -> pa.Table:
        """SHARDS."""
        sources = sources_part(self.number), self.sources["sample_id"]
        return shards_of(self.plan, plan_part(self.number), sources)


def _blocks(run: Run, planned: Planned) -> Iterator[_Block]:
    """The blocks of a run as they were planned."""
    for number, sources in enumerate(source_blocks(run.hard, _sizes(run, planned))):
        yield _Block.of(number, sources, run.grid)


def _sizes(run: Run, planned: Planned | None) -> list[int]:
    """How many sources each block has."""
    if planned is None:
        return run.grid.block_sizes(run.hard.num_rows)
    # Perhaps a version planned it whose blocks are larger.
    return [total(part["new_sources"]) for part in planned.parts()]


def _is_planned(run: Run, planned: Planned | None) -> bool:
    """Whether a run is planned; raises IntegrityError if it was made by another plan."""
    if planned is None:
        return False
    pairs = zip(_blocks(run, planned), planned.parts(), strict=True)
    # A shard's id is the hash of its gids.
    same = (block.shards["shard_id"].equals(part["shard_id"]) for block, part in pairs)
    if planned.sources != run.hard.num_rows or not all(same):
        raise IntegrityError(
            f"{run.store.location(shards_file(0))}: holds another plan than this data gives; "
            f"delete it if it was damaged and {AGAIN}, or name another run.name"
        )
    return True


def _write_parts(run: Run, planned: Planned | None) -> pa.Table:
    """Writes the parts of sources and plan that are not there; returns the SHARDS of all.

    Where the images are not files, many are copied by Ray tasks: this process sees none.
    """
    located = run.samples.located(run.hard)
    # A finished run's images are not read again: nothing is made of them.
    copied = located["part"].null_count < located.num_rows and not run.store.exists(MANIFEST)
    blocks: list[pa.Table] = []
    for number, sources in enumerate(source_blocks(located, _sizes(run, planned))):
        numbers = pa.repeat(number, sources.num_rows)
        blocks.append(sources.append_column("block", numbers))
    work = _WriteParts(run.store, run.samples.store, run.grid)
    if copied:
        what = "real images copied"
        num_cpus = run.config.run.num_cpus
        parts = list(map_blocks(blocks, work, what, num_cpus, weigh="new_sources"))
    else:
        parts = list(map(work, blocks))
    by_place = [("plan", "ascending"), ("plan_first", "ascending")]
    return pa.concat_tables([SHARDS.empty_table(), *parts]).sort_by(by_place).combine_chunks()


@dataclass(frozen=True)
class _WriteParts:
    """Writes a block's part of sources and plan; a value that travels to Ray's workers."""

    store: Store
    samples: Store
    grid: Grid

    def __call__(self, located: pa.Table) -> pa.Table:
        number = located["block"][0].as_py()
        block = _Block.of(number, located.drop(["block"]), self.grid)
        shards = block.shards
        name = sources_part(number)
        samples = located.select(SAMPLES.names)
        if not holds_samples(self.store, name, samples):
            images = read_images(self.samples, block.sources)
            self.store.write(name, parquet_bytes(images, source_groups(images, shards)))
        if not holds(self.store, plan_part(number), block.plan):
            write_part(self.store, plan_part(number), block.plan)
        return shards


def source_groups(sources: pa.Table, shards: pa.Table) -> list[int]:
    """The rows at which row groups begin, so that a shard's sources fill a few of them.

    A group ends where a shard's sources begin or end, if it or what follows up to the next such
    place has GROUP_BYTES or ROW_GROUP rows: two shards may share a source, which then is in a
    group of its own.
    """
    sizes = fill_null(lengths(member(sources["image"], "bytes")), 0).to_numpy()
    bytes_before = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    first = shards["sources_first"].to_numpy()
    bounds: Ints = np.unique(np.concatenate([first, first + shards["sources_rows"].to_numpy()]))
    inner = bounds[(bounds > 0) & (bounds < sources.num_rows)].tolist()

    def is_large(begin: int, end: int) -> bool:
        size = bytes_before[end] - bytes_before[begin]
        return bool(size >= GROUP_BYTES) or end - begin >= ROW_GROUP

    starts = [0]
    for begin, following in pairwise([*inner, sources.num_rows]):
        if is_large(starts[-1], begin) or is_large(begin, following):
            starts.append(begin)
    return starts
