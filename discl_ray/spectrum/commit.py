"""A shard is written whole, and its commit record last.

    spectrum/<shard>.parquet   SPECTRUM, rows by source, λ, replica and attempt;
                               a source's rows lie in one row group
    commits/<shard>.json       names the shard's files with their SHA-256

Readers see committed shards only: a file that no commit names does not exist for them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from discl_ray.core.columns import (
    any_true,
    duplicates,
    fill_null,
    is_in,
    lengths,
    member,
    negate,
    total,
)
from discl_ray.core.ids import sha256
from discl_ray.core.schema import SPECTRUM
from discl_ray.core.storage import ROW_GROUP, Remedy, Store, parquet_bytes, remedy_text
from discl_ray.errors import IntegrityError, UnreadableError
from discl_ray.spectrum.remedies import COMMITS, DATA, images_again, is_of_another_tool, remake

log = logging.getLogger(__name__)

GROUP_BYTES = 8 * 2**20
"""Image bytes after which a row group takes no further source.

A group of 8 MB or 64 rows is read in one go, and its share of the footer, about 3 kB, is small
beside it. That is one source of photographs, or a few of digits.
"""

ORDER = ("sample_id", "lam_pct", "replica", "attempt")
"""Keys that rows are sorted by."""

NAMED = 10
"""Shards that a message names."""

READERS = 16
"""Files opened at once: mostly they wait for a disk or a network."""

T = TypeVar("T")

MADE_NOW = "its images are made again"


def write_shard(run: Store, shard_id: str, table: pa.Table, classes: Sequence[str]) -> None:
    """Writes a shard's SPECTRUM rows, then its commit record.

    `table` holds SCORED rows, `classes` the class names by label. File names come from content, so
    a repeated attempt overwrites itself with the same bytes.
    """
    table = spectrum_rows(table, classes)
    name = f"{DATA}/{shard_id}.parquet"
    data = parquet_bytes(table, group_starts(table))
    run.write(name, data)
    status = Counter[str](table["status"].to_pylist())
    record: dict[str, Any] = {
        "shard_id": shard_id,
        "files": [{"name": name, "rows": table.num_rows, "sha256": sha256(data)}],
        "status": dict(status),
    }
    run.write_json(_record_name(shard_id), record)


def spectrum_rows(scored: pa.Table, classes: Sequence[str]) -> pa.Table:
    """SPECTRUM of SCORED rows and the class names by label, in the order they are stored in."""
    names = pa.array(classes, pa.string()).take(scored["label"])
    table = scored.append_column("class_name", names).select(SPECTRUM.names)
    ordered = table.sort_by([(name, "ascending") for name in ORDER]).combine_chunks()
    # Ray loses the schema's metadata, and `datasets` needs it.
    return ordered.cast(SPECTRUM)


def group_starts(table: pa.Table) -> list[int]:
    """The rows at which row groups begin: none divides a source or, when full, takes another."""
    ids = table["sample_id"].to_numpy(zero_copy_only=False)
    sizes = fill_null(lengths(member(table["image"], "bytes")), 0).to_numpy()
    before = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    starts = [0]
    source_starts = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    for begin in source_starts.tolist():
        last = starts[-1]
        if begin - last >= ROW_GROUP or before[begin] - before[last] >= GROUP_BYTES:
            starts.append(begin)
    return starts


def committed(run: Store) -> dict[str, Any]:
    """Commit records by shard."""
    read = partial(_read_commit, run, partial(images_again, run))
    records = each_of(read, run.list(COMMITS, ".json"))
    return {record["shard_id"]: record for record in records}


def committed_ids(run: Store) -> set[str]:
    """Shards that have a commit record; none is read."""
    return {_shard_of(name) for name in run.list(COMMITS, ".json")}


def _record_name(shard_id: str) -> str:
    return f"{COMMITS}/{shard_id}.json"


def _shard_of(record_name: str) -> str:
    return record_name.removeprefix(f"{COMMITS}/").removesuffix(".json")


def _read_commit(run: Store, remedy: Remedy, name: str) -> dict[str, Any]:
    """A commit record.

    Raises IntegrityError for one that is damaged, or of an unknown layout.
    """
    with run.reading(name, remedy):
        record = run.read_json(name, remedy)
        files = record["files"]
        known = all({"name", "rows", "sha256"} <= file.keys() for file in files)
        if not (known and files and record["shard_id"] == _shard_of(name)):
            raise ValueError("no record of this shard")
        return record


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
            record = _read_commit(run, MADE_NOW, name)
            _check_bytes(run, record, MADE_NOW)
            whole.add(record["shard_id"])
        except UnreadableError:
            raise
        except IntegrityError as error:
            damaged[name] = str(error)
    if damaged:
        others = len(damaged) - 1
        shards = f"{others} more shard{'s' * (others > 1)}"
        log.info("%s%s", min(damaged.values()), f" (likewise {shards})" if others else "")
    for name in damaged:
        run.delete(name)
    return whole


def _check_bytes(run: Store, record: Mapping[str, Any], remedy: Remedy) -> None:
    """Raises IntegrityError unless the files of a commit record hold the recorded bytes."""
    for file in record["files"]:
        name = file["name"]
        with run.reading(name, remedy):
            data = run.read(name)
        if sha256(data) != file["sha256"]:
            todo = remedy_text(remedy)
            raise IntegrityError(f"{run.path(name)}: its bytes differ from its commit; {todo}")


def committed_files(run: Store) -> list[str]:
    """Names of the files with the committed rows, sorted; of another tool's spectrum, all files."""
    if is_of_another_tool(run):
        return run.list(DATA, ".parquet")
    return sorted(file["name"] for file in _recorded_files(run))


def content_of(run: Store) -> list[str]:
    """Hashes of the files with the committed rows, sorted."""
    if is_of_another_tool(run):
        return sorted(each_of(lambda name: sha256(run.read(name)), run.list(DATA, ".parquet")))
    return sorted(file["sha256"] for file in _recorded_files(run))


def _recorded_files(run: Store) -> list[dict[str, Any]]:
    """The files that commit records name: `name`, `rows`, `sha256`."""
    files: list[dict[str, Any]] = []
    for record in committed(run).values():
        files.extend(record["files"])
    return files


def drop_strays(run: Store) -> None:
    """Deletes data files that no commit names. Not while shards are being made.

    A shard that was begun in the layout of an earlier version leaves such files.
    """
    found: set[str] = set()
    for names in data_files(run).values():
        found.update(names)
    for name in found - set(committed_files(run)):
        run.delete(name)


def data_files(run: Store) -> dict[str, list[str]]:
    """Folder -> files with rows, committed or not, in any layout; empty folders are left out."""
    folders = [DATA, *(f"{DATA}/{folder}" for folder in run.folders(DATA))]
    found = {folder: run.list(folder, ".parquet") for folder in folders}
    return {folder: names for folder, names in found.items() if names}


def each_of(function: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """A function of every name, several at once, in their order."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, names))


def verify(run: Store, plan: pa.Table, whole: Container[str] = ()) -> None:
    """Raises IntegrityError unless every planned row is committed once, with its recorded bytes.

    The bytes of the shards in `whole` are known to be right and not read again.
    """
    remedy = partial(images_again, run)
    gids_of: dict[str, pa.ChunkedArray] = {}
    for shard_id, record in committed(run).items():
        if shard_id not in whole:
            _check_bytes(run, record, remedy)
        tables = [run.read_table(file["name"], ["gid"], remedy) for file in record["files"]]
        gids_of[shard_id] = pa.concat_tables(tables)["gid"]
    gids = _concatenated(gids_of.values())
    missing = total(negate(is_in(plan["gid"], gids)))
    if missing:
        raise IntegrityError(
            f"{run.base}: {missing} planned images are not committed; {remake(run)}"
        )
    _check_none(run, gids_of, gids.filter(negate(is_in(gids, plan["gid"]))), "are not in the plan")
    _check_none(run, gids_of, duplicates(gids), "are committed twice")


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
    holders = [shard for shard, gids in gids_of.items() if any_true(is_in(gids, wrong))]
    found = f"{len(wrong)} committed images {what}, e.g. {min(wrong.to_pylist())}"
    records = _records(run, holders)
    raise IntegrityError(f"{run.base}: {found}; delete {records} and {remake(run)}")


def _records(run: Store, shards: Iterable[str]) -> str:
    """The commit records of some shards, by their paths."""
    names = sorted(shards)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(run.path(_record_name(shard)) for shard in names[:NAMED]) + more
