"""Folding: now and then the rows of all committed shards, without pixels, become one table.

No reader depends on a fold, so a process that is killed while it folds loses nothing: the table
has its content's name, the record that names it comes last, and only then is the fold before it
deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from discl_ray.core.columns import duplicates, is_in, negate
from discl_ray.core.ids import sha256
from discl_ray.core.storage import Stamp, Store, open_parquet
from discl_ray.errors import IntegrityError, UnreadableError
from discl_ray.spectrum.files import Ledger, data_stamps, read_ledger
from discl_ray.spectrum.folded import FILES, FOLDED, RECORD, ROWS, TABLE, Fold, named, newest_fold
from discl_ray.spectrum.read import read_files

EVERY = 1000
"""Shards that are committed before the next fold, while shards are being made."""

GROWTH = 4
"""And at least one for so many that are folded: each row is written about this often in all."""

GROUP = 1 << 15
"""Rows of a row group; in memory about 30 MB."""

AT_ONCE = 256
"""Data files that are read before their rows are written."""

NOT_THERE = Stamp(0, None)
"""Of a file that is gone, which no file has."""

DISTINCT = ("gid", "seed", "text_sim", "image_sim")
"""Columns whose values hardly repeat, so that a dictionary of them would be waste."""


@dataclass
class Folding:
    """Folds a run's commits while its shards are being made."""

    run: Store
    since: int = 0
    """Shards that were committed since the last fold."""
    folded: int = 0
    """Shards of the last fold."""

    @classmethod
    def begin(cls, run: Store) -> Self:
        """Goes on from the newest fold."""
        return cls(run, folded=newest_fold(run).files.num_rows)

    def note(self, shards: int = 1) -> None:
        """Takes note of committed shards, and folds if that is due."""
        self.since += shards
        if self.since >= max(EVERY, self.folded // GROWTH):
            fold(self.run)
            self.folded += self.since
            self.since = 0


def fold(run: Store) -> None:
    """Folds the committed shards of a run, unless the newest fold has them all.

    Raises IntegrityError if a shard is damaged, StorageError if the folder cannot be written.
    """
    ledger = read_ledger(run)
    if not ledger.behind:
        # One that was killed before it came to that left the fold before.
        _delete_others(run, (ledger.fold.table, ledger.fold.record))
        return
    try:
        made = _write(run, ledger)
    except UnreadableError:
        raise
    except IntegrityError:
        if not ledger.fold.rows:
            raise
        # It may be the fold before that is damaged.
        made = _write(run, ledger.without_fold())
    _delete_others(run, made)


def _write(run: Store, ledger: Ledger) -> tuple[str, str]:
    """Writes a fold's table, then its record; returns their names."""
    # Dates come before the rows: a file that is written meanwhile has a later one.
    files = _dated(run, ledger.files)
    twice = duplicates(files["file"])
    files = files.filter(negate(is_in(files["file"], twice)))
    sink = pa.BufferOutputStream()
    rows = _write_rows(sink, _tables(run, ledger, files))
    data = sink.getvalue().to_pybytes()
    made = Fold(named(data, TABLE), len(data), sha256(data), rows, files)
    record = made.as_json()
    name = named(record, RECORD)
    run.write(made.table, data)
    run.write(name, record)
    return made.table, name


def _dated(run: Store, files: pa.Table) -> pa.Table:
    """FILES with the sizes and dates that the files have now."""
    listed = data_stamps(run)
    sizes: list[int | None] = []
    dates: list[int | None] = []
    for name in files["file"].to_pylist():
        stamp = listed.get(name, NOT_THERE)
        sizes.append(stamp.size)
        dates.append(stamp.date)
    columns = {name: files[name] for name in FILES.names}
    columns["size"] = pa.array(sizes, pa.int64())
    columns["file_date"] = pa.array(dates, pa.int64())
    return pa.table(columns, schema=FILES)


def _tables(run: Store, ledger: Ledger, files: pa.Table) -> Iterator[pa.Table]:
    """ROWS of the files, a part at a time: first those of the fold before."""
    is_folded = is_in(files["file"], ledger.folded["file"])
    folded = files.filter(is_folded)
    if folded.num_rows:
        with run.reading(ledger.fold.table):
            yield from _folded_rows(run, ledger.fold, folded["file"])
    others = files.filter(negate(is_folded))
    for begin in range(0, others.num_rows, AT_ONCE):
        names = others["file"].slice(begin, AT_ONCE)
        yield read_files(run, ROWS.names, names.to_pylist())


def _folded_rows(run: Store, before: Fold, files: pa.ChunkedArray) -> Iterator[pa.Table]:
    """ROWS of some files of a fold, a row group at a time."""
    with run.filesystem.open_input_file(run.path(before.table)) as source:
        table = open_parquet(source)
        for group in range(table.num_row_groups):
            rows = table.read_row_group(group, ROWS.names, use_threads=False)
            yield rows.filter(is_in(rows["file"], files))


def _write_rows(sink: pa.BufferOutputStream, tables: Iterator[pa.Table]) -> int:
    """Writes tables of ROWS as one Parquet file, a row group for GROUP rows; returns how many."""
    names = [name for name in ROWS.names if name not in DISTINCT]
    count = 0
    waiting = [ROWS.empty_table()]
    with pq.ParquetWriter(
        sink, ROWS, compression="zstd", use_dictionary=names, write_page_checksum=True
    ) as writer:
        for table in tables:
            # In one piece: a chunk for each file and column would take more than its rows.
            waiting.append(table.cast(ROWS).combine_chunks())
            if sum(part.num_rows for part in waiting) >= GROUP:
                count += _write_group(writer, waiting)
                waiting = [ROWS.empty_table()]
        count += _write_group(writer, waiting)
    return count


def _write_group(writer: pq.ParquetWriter, parts: Sequence[pa.Table]) -> int:
    """Writes tables as one row group; returns the number of rows."""
    rows = pa.concat_tables(parts)
    if rows.num_rows:
        writer.write_table(rows, row_group_size=rows.num_rows)
    return rows.num_rows


def _delete_others(run: Store, kept: Sequence[str]) -> None:
    """Deletes the folds before one, and what killed processes left."""
    others = [name for name in run.list(FOLDED) if name not in kept]
    # Records first: none may name a table that is gone.
    for name in sorted(others, key=lambda name: name.endswith(".parquet")):
        run.delete(name)


def drop_folds(run: Store) -> None:
    """Deletes all folds, one of which is damaged; generate folds anew."""
    _delete_others(run, ())
