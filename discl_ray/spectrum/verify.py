"""Whether a run's committed files are what their records say, and its rows what was planned."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import partial

import pyarrow as pa

from discl_ray.core.columns import any_true, duplicates, is_in, negate, total
from discl_ray.core.ids import sha256
from discl_ray.core.storage import Remedy, Store, remedy_text
from discl_ray.errors import IntegrityError, UnreadableError
from discl_ray.spectrum.files import committed_files, data_files
from discl_ray.spectrum.records import Commit, committed, read_commit, record_name
from discl_ray.spectrum.remedies import COMMITS, images_again, remake

log = logging.getLogger(__name__)

NAMED = 10
"""Shards that a message names."""

MADE_NOW = "its images are made again"


def drop_damaged(run: Store) -> set[str]:
    """Deletes the commit records of damaged shards, which are made again then, and logs them.

    Every committed byte is read and compared with its recorded hash. Not while shards are being
    made. Returns the shards that are whole. Raises UnreadableError if the disk fails: what it
    does not give may be whole.
    """
    whole: set[str] = set()
    damaged: dict[str, str] = {}
    for name in run.list(COMMITS, ".json"):
        try:
            record = read_commit(run, MADE_NOW, name)
            _check_bytes(run, record, MADE_NOW)
            whole.add(record.shard_id)
        except UnreadableError:
            raise
        except IntegrityError as error:
            damaged[name] = str(error)
    if damaged:
        log.info("%s", _first_of(list(damaged.values())))
    # Only now: an UnreadableError above must cost no record.
    for name in damaged:
        run.delete(name)
    if damaged:
        # What is made again takes the names of what was damaged.
        drop_strays(run)
    return whole


def _first_of(errors: Sequence[str]) -> str:
    """The first of several messages, and how many shards more have one."""
    first = min(errors)
    others = len(errors) - 1
    if not others:
        return first
    shards = "shard" if others == 1 else "shards"
    return f"{first} (likewise {others} more {shards})"


def _check_bytes(run: Store, record: Commit, remedy: Remedy) -> None:
    """Raises IntegrityError unless the files of a commit record hold the recorded bytes."""
    for file in record.files:
        with run.reading(file.name, remedy):
            data = run.read(file.name)
        if sha256(data) == file.sha256:
            continue
        path = run.path(file.name)
        todo = remedy_text(remedy)
        raise IntegrityError(f"{path}: its bytes differ from its commit; {todo}")


def drop_strays(run: Store) -> None:
    """Deletes data files that no commit names. Not while shards are being made.

    A shard that was begun in the layout of an earlier version leaves such files.
    """
    found: set[str] = set()
    for names in data_files(run).values():
        found.update(names)
    strays = found - set(committed_files(run))
    for name in strays:
        run.delete(name)


def verify(run: Store, plan: pa.Table, whole: Container[str] = ()) -> None:
    """Raises IntegrityError unless every planned row is committed once, with its recorded bytes.

    The bytes of the shards in `whole` are known to be right and not read again.
    """
    gids_of = _checked_gids(run, whole)
    gids = _concatenated(gids_of.values())
    planned = plan["gid"]
    uncommitted = negate(is_in(planned, gids))
    missing = total(uncommitted)
    if missing:
        raise IntegrityError(
            f"{run.base}: {missing} planned images are not committed; {remake(run)}"
        )
    unplanned = negate(is_in(gids, planned))
    _check_none(run, gids_of, gids.filter(unplanned), "are not in the plan")
    _check_none(run, gids_of, duplicates(gids), "are committed twice")


def _checked_gids(run: Store, whole: Container[str]) -> dict[str, pa.ChunkedArray]:
    """Shard -> committed gids; the bytes of shards that are not in `whole` are checked first."""
    remedy = partial(images_again, run)
    gids_of: dict[str, pa.ChunkedArray] = {}
    for shard_id, record in committed(run).items():
        if shard_id not in whole:
            _check_bytes(run, record, remedy)
        tables = [run.read_table(file.name, ["gid"], remedy) for file in record.files]
        gids_of[shard_id] = pa.concat_tables(tables)["gid"]
    return gids_of


def _concatenated(columns: Iterable[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Columns of text, one after the other."""
    chunks: list[pa.Array] = []
    for column in columns:
        chunks.extend(column.chunks)
    return pa.chunked_array(chunks, pa.string())


def _check_none(
    run: Store, gids_of: Mapping[str, pa.ChunkedArray], wrong: pa.Array, what: str
) -> None:
    """Raises IntegrityError if there are wrong gids, naming the commit records that hold them."""
    if not len(wrong):
        return
    holders: list[str] = []
    for shard_id, gids in gids_of.items():
        if any_true(is_in(gids, wrong)):
            holders.append(shard_id)
    example = min(wrong.to_pylist())
    records = _records(run, holders)
    raise IntegrityError(
        f"{run.base}: {len(wrong)} committed images {what}, e.g. {example}; "
        f"delete {records} and {remake(run)}"
    )


def _records(run: Store, shards: Iterable[str]) -> str:
    """The commit records of some shards, by their paths; the first NAMED of them."""
    names = sorted(shards)
    paths = [run.path(record_name(shard)) for shard in names[:NAMED]]
    listed = ", ".join(paths)
    if len(names) <= NAMED:
        return listed
    return f"{listed} and {len(names) - NAMED} more"
