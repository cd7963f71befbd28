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
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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
"""Columns that rows are sorted by."""

STORED_BY = [(name, "ascending") for name in ORDER]
"""The same as keys of `pyarrow.Table.sort_by`."""

NAMED = 10
"""Shards that a message names."""

READERS = 16
"""Files opened at once: mostly they wait for a disk or a network."""

T = TypeVar("T")

MADE_NOW = "its images are made again"


@dataclass(frozen=True)
class CommittedFile:
    """A data file that a commit record names."""

    name: str
    """Relative to the run."""
    rows: int
    sha256: str
    """Of the file's bytes, hexadecimal."""


@dataclass(frozen=True)
class Commit:
    """A commit record: which files hold a shard's rows."""

    shard_id: str
    files: tuple[CommittedFile, ...]
    """One; several in the layout of an earlier version, which had a file for each λ."""
    status: Mapping[str, int]
    """`status` -> number of rows that have it."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The record that a JSON object holds; raises LookupError or TypeError if it is none."""
        files = [
            CommittedFile(name=file["name"], rows=file["rows"], sha256=file["sha256"])
            for file in value["files"]
        ]
        return cls(
            shard_id=value["shard_id"],
            files=tuple(files),
            # Nothing depends on it, so a record without it is a record.
            status=value.get("status", {}),
        )


def write_shard(run: Store, shard_id: str, table: pa.Table, classes: Sequence[str]) -> None:
    """Writes a shard's SPECTRUM rows, then its commit record.

    `table` holds SCORED rows, `classes` the class names by label. File names come from content, so
    a repeated attempt overwrites itself with the same bytes. Raises StorageError if the run's
    folder cannot be written.
    """
    table = spectrum_rows(table, classes)
    data = parquet_bytes(table, group_starts(table))
    file = CommittedFile(
        name=f"{DATA}/{shard_id}.parquet", rows=table.num_rows, sha256=sha256(data)
    )
    status = Counter[str](table["status"].to_pylist())
    commit = Commit(shard_id, (file,), dict(status))
    # The record comes last: a shard that is half written when its worker dies has none.
    run.write(file.name, data)
    run.write_json(_record_name(shard_id), asdict(commit))


def spectrum_rows(scored: pa.Table, classes: Sequence[str]) -> pa.Table:
    """SPECTRUM of SCORED rows and the class names by label, in the order they are stored in."""
    names = pa.array(classes, pa.string())
    class_name = names.take(scored["label"])
    table = scored.append_column("class_name", class_name)
    ordered = table.select(SPECTRUM.names).sort_by(STORED_BY)
    # Ray loses the schema's metadata, and `datasets` needs it.
    return ordered.combine_chunks().cast(SPECTRUM)


def group_starts(table: pa.Table) -> list[int]:
    """The rows at which row groups begin: none divides a source or, when full, takes another."""
    source_starts = _source_starts(table["sample_id"])
    # Image bytes in the rows before each row, and in all of them; shape (rows + 1,).
    up_to_row = np.cumsum(_image_sizes(table), dtype=np.int64)
    bytes_before = np.concatenate([[0], up_to_row])
    starts = [0]
    for begin in source_starts:
        last = starts[-1]
        rows = begin - last
        size = bytes_before[begin] - bytes_before[last]
        if rows >= ROW_GROUP or size >= GROUP_BYTES:
            starts.append(begin)
    return starts


def _source_starts(sample_ids: pa.ChunkedArray) -> list[int]:
    """The rows at which another source begins than in the row before; row 0 is left out."""
    ids = sample_ids.to_numpy(zero_copy_only=False)
    changes = ids[1:] != ids[:-1]
    starts = np.flatnonzero(changes) + 1
    return starts.tolist()


def _image_sizes(table: pa.Table) -> NDArray[np.int64]:
    """Bytes of each row's encoded image, 0 where none was made; shape (rows,)."""
    encoded = member(table["image"], "bytes")
    sizes = fill_null(lengths(encoded), 0)
    return sizes.to_numpy()


def committed(run: Store) -> dict[str, Commit]:
    """Commit records by shard.

    Raises IntegrityError if one is damaged, UnreadableError if the disk or the network fails.
    """
    remedy = partial(images_again, run)
    read = partial(_read_commit, run, remedy)
    records = each_of(read, run.list(COMMITS, ".json"))
    return {record.shard_id: record for record in records}


def committed_ids(run: Store) -> set[str]:
    """Shards that have a commit record; none is read."""
    return {_shard_of(name) for name in run.list(COMMITS, ".json")}


def _record_name(shard_id: str) -> str:
    """The file of a shard's commit record."""
    return f"{COMMITS}/{shard_id}.json"


def _shard_of(record_name: str) -> str:
    """The shard whose commit record a file is."""
    file = record_name.removeprefix(f"{COMMITS}/")
    return file.removesuffix(".json")


def _read_commit(run: Store, remedy: Remedy, name: str) -> Commit:
    """A commit record.

    Raises IntegrityError for one that is damaged, or of an unknown layout.
    """
    with run.reading(name, remedy):
        record = Commit.from_json(run.read_json(name, remedy))
        if not record.files:
            raise ValueError("no record of this shard")
        # A copied record would let another shard's images count twice.
        if record.shard_id != _shard_of(name):
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


def committed_files(run: Store) -> list[str]:
    """Names of the files with the committed rows, sorted; of another tool's spectrum, all files."""
    if is_of_another_tool(run):
        return run.list(DATA, ".parquet")
    return sorted(file.name for file in _recorded_files(run))


def content_of(run: Store) -> list[str]:
    """Hashes of the files with the committed rows, sorted."""
    if not is_of_another_tool(run):
        return sorted(file.sha256 for file in _recorded_files(run))
    # Without a record the bytes themselves must be read.
    names = run.list(DATA, ".parquet")
    hashes = each_of(lambda name: sha256(run.read(name)), names)
    return sorted(hashes)


def _recorded_files(run: Store) -> list[CommittedFile]:
    """The files that all commit records name."""
    files: list[CommittedFile] = []
    for record in committed(run).values():
        files.extend(record.files)
    return files


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


def data_files(run: Store) -> dict[str, list[str]]:
    """Folder -> files with rows, committed or not, in any layout; empty folders are left out."""
    inner = [f"{DATA}/{folder}" for folder in run.folders(DATA)]
    found: dict[str, list[str]] = {}
    for folder in (DATA, *inner):
        names = run.list(folder, ".parquet")
        if names:
            found[folder] = names
    return found


def each_of(function: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """A function of every name, several at once, in their order."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, names))


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
    paths = [run.path(_record_name(shard)) for shard in names[:NAMED]]
    listed = ", ".join(paths)
    if len(names) <= NAMED:
        return listed
    return f"{listed} and {len(names) - NAMED} more"
