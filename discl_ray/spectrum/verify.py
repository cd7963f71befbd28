"""Whether a run's committed files are what their records say, and its rows what was planned.

Bytes are hashed once, by who writes them. A resumed run compares sizes and footers only, which
finds files that are gone, cut short or overwritten. What a disk changes inside a file is found by
its pages' checksums when they are read, or by `verify`, which reads and hashes every byte.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from discl_ray.core.columns import duplicates, is_in, negate, total
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError, UnreadableError
from discl_ray.spectrum.files import (
    Damage,
    Ledger,
    data_stamps,
    read_ledger,
    wrong_footers,
    wrong_sizes,
)
from discl_ray.spectrum.folded import newest_fold
from discl_ray.spectrum.read import read_rows
from discl_ray.spectrum.records import READERS, record_name
from discl_ray.spectrum.remedies import is_of_another_tool, remake

log = logging.getLogger(__name__)

NAMED = 10
"""Shards that a message names."""

PART = 1 << 20
"""Bytes of a file that are read and hashed at once."""

MADE_NOW = "its images are made again"


@dataclass(frozen=True)
class Verified:
    """What reading every committed byte of a spectrum has shown."""

    files: int
    bytes: int
    """That were read."""
    damaged: Damage
    """Commit record -> what is wrong with it or its file; of another tool's spectrum by file."""


def drop_damaged(run: Store) -> None:
    """Deletes the commit records of damaged shards, which are made again then, and logs them.

    A shard is damaged if its record is, or if a file is gone, has another size, or a damaged
    footer. Not while shards are being made. Raises UnreadableError if the disk fails: what it does
    not give may be whole.
    """
    damaged: Damage = {}
    ledger = read_ledger(run, damaged, MADE_NOW)
    listed = data_stamps(run)
    wrong = wrong_sizes(run, ledger, listed, MADE_NOW)
    wrong |= wrong_footers(run, ledger, listed, MADE_NOW)
    damaged |= _by_record(ledger, wrong)
    if damaged:
        log.info("%s", _first_of(list(damaged.values())))
        # Only now: an UnreadableError above must cost no record.
        drop(run, damaged)


def drop(run: Store, records: Iterable[str]) -> None:
    """Deletes commit records and what they alone named. Not while shards are being made.

    The shards are made again then, and their files take the names of those that were damaged. The
    run is not complete until they are.
    """
    run.delete(MANIFEST)  # first: whoever is killed here has lost nothing
    for name in records:
        run.delete(name)
    drop_strays(run)


def _by_record(ledger: Ledger, wrong: Mapping[str, str]) -> Damage:
    """What is wrong with files, by the commit records that name them."""
    rows = ledger.files.filter(is_in(ledger.files["file"], list(wrong)))
    pairs = zip(rows["shard_id"].to_pylist(), rows["file"].to_pylist(), strict=True)
    return {record_name(shard_id): wrong[file] for shard_id, file in pairs}


def _first_of(errors: Sequence[str]) -> str:
    """The first of several messages, and how many shards more have one."""
    first = min(errors)
    others = len(errors) - 1
    if not others:
        return first
    shards = "shard" if others == 1 else "shards"
    return f"{first} (likewise {others} more {shards})"


def verify(run: Store, note: Callable[[], None] = lambda: None) -> Verified:
    """Reads every committed byte, several files at once, and compares it with what was committed.

    Of another tool's spectrum, which says no hashes, all pages are read, and their checksums
    compared where it wrote some. `note` is called after each file.
    Changes nothing. Raises UnreadableError if the disk or the network fails.
    """
    damaged: Damage = {}
    # Every record is read, too: the fold is no witness of them.
    ledger = read_ledger(run, damaged, use_fold=False)
    foreign = is_of_another_tool(run)
    check = partial(_read_pages, run) if foreign else partial(_check_bytes, run, remake(run))
    hashes = ledger.files["sha256"].to_pylist()
    found: dict[str, str] = {}
    read = 0
    with ThreadPoolExecutor(READERS) as pool:
        results = pool.map(check, ledger.names, hashes)
        for name, (size, wrong) in zip(ledger.names, results, strict=True):
            read += size
            note()
            if wrong:
                found[name] = wrong
    damaged |= found if foreign else _by_record(ledger, found)
    return Verified(len(ledger.names), read, damaged)


def _check_bytes(run: Store, todo: str, name: str, committed: str) -> tuple[int, str]:
    """The size of a file, and what is wrong with it, or nothing."""
    digest = hashlib.sha256()
    size = 0
    try:
        with run.reading(name, todo), run.filesystem.open_input_stream(run.path(name)) as stream:
            while part := stream.read(PART):
                digest.update(part)
                size += len(part)
    except UnreadableError:
        raise
    except IntegrityError as error:
        return size, str(error)
    if digest.hexdigest() == committed:
        return size, ""
    return size, f"{run.location(name)}: its bytes differ from its commit; {todo}"


def _read_pages(run: Store, name: str, _: str | None) -> tuple[int, str]:
    """The size of a file without a recorded hash, and what is wrong with it, or nothing."""
    try:
        run.read_table(name)
    except UnreadableError:
        raise
    except IntegrityError as error:
        return 0, str(error)
    return run.filesystem.get_file_info(run.path(name)).size, ""


def damaged_fold(run: Store) -> str:
    """What is wrong with the newest fold; nothing if there is none, or it is whole."""
    fold = newest_fold(run)
    if not fold.rows:
        return ""
    return _check_bytes(run, "it is made again by generate", fold.table, fold.sha256)[1]


def drop_strays(run: Store) -> None:
    """Deletes data files that no commit names. Not while shards are being made.

    A shard that was begun in the layout of an earlier version leaves such files.
    """
    strays = set(data_stamps(run)) - set(read_ledger(run).names)
    for name in sorted(strays):
        run.delete(name)


def check_planned(run: Store, plan: pa.Table) -> None:
    """Raises IntegrityError unless every planned row is committed once, and no other.

    Reads ids only, from the fold where it has them.
    """
    rows = read_rows(run, ["gid", "file"], read_ledger(run))
    gids = rows["gid"]
    planned = plan["gid"]
    missing = total(negate(is_in(planned, gids)))
    if missing:
        raise IntegrityError(
            f"{run.location()}: {missing} planned images are not committed; {remake(run)}"
        )
    if len(gids) == len(planned):
        # Planned ids differ, and as many rows as there are hold them all.
        return
    unplanned = negate(is_in(gids, planned))
    _check_none(run, rows, gids.filter(unplanned), "are not in the plan")
    _check_none(run, rows, duplicates(gids), "are committed twice")


def _check_none(run: Store, rows: pa.Table, wrong: pa.Array, what: str) -> None:
    """Raises IntegrityError if there are wrong gids, naming the commit records that hold them."""
    if not len(wrong):
        return
    held = rows.filter(is_in(rows["gid"], wrong))["file"].unique()
    files = read_ledger(run).files
    holders = files.filter(is_in(files["file"], held))["shard_id"].unique().to_pylist()
    example = min(wrong.to_pylist())
    records = named_records(run, [record_name(shard_id) for shard_id in holders])
    raise IntegrityError(
        f"{run.location()}: {len(wrong)} committed images {what}, e.g. {example}; "
        f"delete {records} and {remake(run)}"
    )


def named_records(run: Store, names: Iterable[str]) -> str:
    """Commit records by their paths; the first NAMED of them."""
    every = sorted(names)
    paths = [run.location(name) for name in every[:NAMED]]
    listed = ", ".join(paths)
    if len(every) <= NAMED:
        return listed
    return f"{listed} and {len(every) - NAMED} more"
