"""A shard is written whole, and its commit record last.

    spectrum/<shard>.parquet   SPECTRUM, rows by source, λ, replica and attempt;
                               a source's rows lie in one row group
    commits/<shard>.json       names the shard's files with their sizes and SHA-256, and counts rows

Two writers may make one shard: after a machine was taken for dead, or where Ray tries a task
again. On a GPU their bytes may differ. The first record stays, on disks and on object stores; a
file is never replaced by other bytes, and takes the name `<shard>-<its SHA-256's first 8>.parquet`
if the plain one is taken.

Readers see committed shards only: a file that no commit names does not exist for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core.columns import counts, fill_null, lengths, member
from discl_ray.core.ids import sha256
from discl_ray.core.schema import SPECTRUM
from discl_ray.core.storage import ROW_GROUP, Store, json_bytes, parquet_bytes
from discl_ray.spectrum.records import Commit, CommittedFile, read_commit, record_name
from discl_ray.spectrum.remedies import DATA

GROUP_BYTES = 8 * 2**20
"""Image bytes after which a row group takes no further source.

A group of 8 MB or 64 rows is read in one go, and its share of the footer, about 3 kB, is small
beside it. That is one source of photographs, or a few of digits.
"""

ORDER = ("sample_id", "lam_pct", "replica", "attempt")
"""Columns that rows are sorted by."""

STORED_BY = [(name, "ascending") for name in ORDER]
"""The same as keys of `pyarrow.Table.sort_by`."""


def write_shard(run: Store, shard_id: str, table: pa.Table, classes: Sequence[str]) -> None:
    """Writes a shard's SPECTRUM rows, then its commit record, unless it is committed already.

    `table` holds SCORED rows, `classes` the class names by label. Of two that make a shard at once
    the first to write the record wins; the file of the other is deleted, unless both made the same
    bytes. Raises StorageError if the run's folder cannot be written.
    """
    record = record_name(shard_id)
    if run.exists(record):
        return
    table = spectrum_rows(table, classes)
    data = parquet_bytes(table, group_starts(table))
    digest = sha256(data)
    name = _write_data(run, shard_id, data, digest)
    file = CommittedFile(name, table.num_rows, digest, len(data))
    commit = Commit(shard_id, (file,), counts(table["status"]), _levels(table))
    # The record comes last: a shard that is half written when its worker dies has none.
    if not run.create(record, json_bytes(asdict(commit))):
        _withdraw(run, record, name)


def _write_data(run: Store, shard_id: str, data: bytes, digest: str) -> str:
    """Writes a shard's file and returns its name, which says the content if the plain one is taken.

    Another's bytes have it: of a writer at the same time, or of one that did not come to commit.
    """
    for name in (f"{DATA}/{shard_id}.parquet", f"{DATA}/{shard_id}-{digest[:8]}.parquet"):
        if run.create(name, data):
            return name
    # Named by this content and of another: damaged.
    run.write(name, data)
    return name


def _withdraw(run: Store, record: str, name: str) -> None:
    """Deletes a file whose shard another writer has committed, unless the record names it."""
    winner = read_commit(run, "", record)
    if name not in [file.name for file in winner.files]:
        run.delete(name)


def _levels(table: pa.Table) -> dict[str, dict[str, int]]:
    """`role` -> λ in percent, as text -> number of rows of a shard."""
    keys = ["role", "lam_pct"]
    found = table.group_by(keys).aggregate([([], "count_all")])
    levels: dict[str, dict[str, int]] = {}
    for row in found.to_pylist():
        of_role = levels.setdefault(str(row["role"]), {})
        of_role[str(row["lam_pct"])] = row["count_all"]
    return levels


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
