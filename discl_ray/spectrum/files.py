"""Which files hold the rows of a spectrum: a listing, the newest fold, and the records since.

A shard of the fold counts if its commit record is listed, and is the one that was folded: has the
size and date it had then or, where they differ (a copied run, say), names the same bytes. So the
shards of a large run are known without a record being read, and what was deleted or made again
since is not taken from the fold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from discl_ray.core.columns import (
    Column,
    Mask,
    both,
    equal,
    fill_null,
    is_in,
    joined,
    negate,
    places_in,
)
from discl_ray.core.ids import sha256
from discl_ray.core.storage import Remedy, Stamp, Store, open_parquet, remedy_text
from discl_ray.errors import IntegrityError, UnreadableError
from discl_ray.spectrum.folded import FILES, NOTHING, Fold, newest_fold
from discl_ray.spectrum.of_another_tool import wrong_links
from discl_ray.spectrum.records import Commit, each_of, read_commit, record_name
from discl_ray.spectrum.remedies import COMMITS, DATA, images_again, is_of_another_tool

Damage = dict[str, str]
"""Commit record -> what is wrong with it or with a file it names."""


@dataclass(frozen=True)
class Ledger:
    """The committed files of a spectrum; of another tool's, all files."""

    files: pa.Table
    """FILES, sorted by name."""
    folded: pa.Table
    """Those whose rows lie in the fold."""
    fold: Fold
    behind: int = 0
    """Shards that were committed, made again or deleted since the fold."""

    @property
    def names(self) -> list[str]:
        """Names of the files."""
        return self.files["file"].to_pylist()

    @property
    def unfolded(self) -> list[str]:
        """Names of the files whose rows lie in no fold."""
        return _without(self.files, self.folded)["file"].to_pylist()

    def without_fold(self) -> Ledger:
        """The same files, to be read one by one."""
        return replace(self, folded=FILES.empty_table(), fold=NOTHING)


def read_ledger(
    run: Store, damaged: Damage | None = None, remedy: Remedy = "", *, use_fold: bool = True
) -> Ledger:
    """The committed files of a spectrum. Of the records, those are read that no fold covers.

    Damaged records are noted in `damaged` and left out. Without it raises IntegrityError for the
    first; raises UnreadableError if the disk or the network fails. `remedy` is what such an error
    says to do, by default to generate again.
    """
    if is_of_another_tool(run):
        broken = wrong_links(run, DATA)
        if broken and damaged is None:
            raise IntegrityError(min(broken.values()))
        if damaged is not None:
            damaged |= broken
        files = _unrecorded(run.list(DATA, ".parquet"))
        return Ledger(files, FILES.empty_table(), NOTHING)
    # The listing comes first: of what is committed meanwhile, nothing counts.
    listed = run.stamps(COMMITS, ".json")
    fold = newest_fold(run) if use_fold else NOTHING
    unchanged = fold.files.filter(_as_listed(fold.files, listed))
    known = set(_records_of(unchanged).to_pylist())
    since = [name for name in listed if name not in known]
    remedy = remedy or partial(images_again, run)
    records = _read_records(run, since, damaged, remedy)
    read = _files_of(records, listed)
    again = _same_bytes(fold.files, read)
    files = pa.concat_tables([unchanged, read]).sort_by("file")
    folded = pa.concat_tables([unchanged, again])
    lost = fold.files.num_rows - folded.num_rows
    return Ledger(files, folded, fold, behind=len(since) + lost)


def _unrecorded(names: list[str]) -> pa.Table:
    """FILES of which nothing but the name is known."""
    columns: dict[str, Any] = {}
    for field in FILES:
        columns[field.name] = pa.nulls(len(names), field.type)
    columns["file"] = names
    return pa.table(columns, schema=FILES)


def _records_of(files: pa.Table) -> Column:
    """The commit records that name some files, row by row."""
    return joined([f"{COMMITS}/", files["shard_id"], ".json"])


def _as_listed(files: pa.Table, listed: Mapping[str, Stamp]) -> Mask:
    """Which folded files have a commit record of the size and date it had when it was folded."""
    places = places_in(_records_of(files), pa.array(listed, pa.string()))
    sizes = pa.array([stamp.size for stamp in listed.values()], pa.int64())
    dates = pa.array([stamp.date for stamp in listed.values()], pa.int64())
    # Null, which equals nothing, where the record is gone or the file system says no date.
    same_size = equal(sizes.take(places), files["record_size"])
    same_date = equal(dates.take(places), files["record_date"])
    return fill_null(both(same_size, same_date), False)


def _read_records(
    run: Store, names: Sequence[str], damaged: Damage | None, remedy: Remedy
) -> list[Commit]:
    """Commit records, several read at once; damaged ones as `read_ledger` says."""

    def read(name: str) -> Commit | None:
        try:
            return read_commit(run, remedy, name)
        except UnreadableError:
            raise
        except IntegrityError as error:
            if damaged is None:
                raise
            damaged[name] = str(error)
            return None

    return [record for record in each_of(read, names) if record is not None]


def _files_of(records: Sequence[Commit], listed: Mapping[str, Stamp]) -> pa.Table:
    """FILES that some commit records name."""
    rows: list[tuple[object, ...]] = []
    for record in records:
        shard_id = record.shard_id
        stamp = listed[record_name(shard_id)]
        levels = None
        if record.levels is not None:
            levels = json.dumps(record.levels, sort_keys=True)
        for file in record.files:
            told = (file.name, file.rows, file.sha256, file.size)
            # In the order of FILES; what is null is known when the file is folded.
            rows.append((shard_id, *told, levels, *stamp, None))
    if not rows:
        return FILES.empty_table()
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(FILES.names, columns, strict=True)), schema=FILES)


def _same_bytes(folded: pa.Table, files: pa.Table) -> pa.Table:
    """The folded files that some files' records name with the same hash."""
    keys = ("shard_id", "file", "sha256")
    named = is_in(_key(folded, keys), _key(files, keys))
    return folded.filter(named)


def _without(files: pa.Table, others: pa.Table) -> pa.Table:
    """The files that are not among others; a file that several shards name counts for each."""
    keys = ("shard_id", "file")
    among = is_in(_key(files, keys), _key(others, keys))
    return files.filter(negate(among))


def _key(files: pa.Table, names: Sequence[str]) -> Column:
    """Some columns of text as one; null where one of them is."""
    return joined([files[name] for name in names], "/")


def committed_files(run: Store) -> list[str]:
    """Names of the files with the committed rows, sorted; of another tool's spectrum, all files."""
    return read_ledger(run).names


def content_of(run: Store) -> list[str]:
    """Hashes of the files with the committed rows, sorted."""
    ledger = read_ledger(run)
    if not is_of_another_tool(run):
        return sorted(ledger.files["sha256"].to_pylist())
    # Without a record the bytes themselves must be read.
    hashes = each_of(lambda name: sha256(run.read(name)), ledger.names)
    return sorted(hashes)


def data_files(run: Store) -> dict[str, list[str]]:
    """Folder -> files with rows, committed or not, in any layout; empty folders are left out."""
    found: dict[str, list[str]] = {}
    for name in data_stamps(run):
        folder = name.rpartition("/")[0]
        found.setdefault(folder, []).append(name)
    return found


def data_stamps(run: Store) -> dict[str, Stamp]:
    """Sizes and dates of the files with rows, committed or not, in any layout."""
    inner = [f"{DATA}/{folder}" for folder in run.folders(DATA)]
    found: dict[str, Stamp] = {}
    for folder in (DATA, *inner):
        found |= run.stamps(folder, ".parquet")
    return found


def check_sizes(run: Store, ledger: Ledger) -> None:
    """Raises IntegrityError naming the first file that is gone or not as long as was committed."""
    wrong = wrong_sizes(run, ledger, data_stamps(run), partial(images_again, run))
    if wrong:
        raise IntegrityError(min(wrong.values()))


def wrong_sizes(
    run: Store, ledger: Ledger, listed: Mapping[str, Stamp], remedy: Remedy
) -> dict[str, str]:
    """File -> what is wrong, of those that are gone or not as long as was committed.

    `listed` are `data_stamps`. A size that neither a record nor the fold says is not compared.
    """
    reasons: dict[str, str] = {}
    sizes = ledger.files["size"].to_pylist()
    for name, size in zip(ledger.names, sizes, strict=True):
        stamp = listed.get(name)
        if stamp is None:
            reasons[name] = "is gone"
        elif size not in (None, stamp.size):
            reasons[name] = f"is cut short or garbled ({stamp.size} of {size} bytes)"
    if not reasons:
        # On an object store it takes requests to find out what to do.
        return {}
    todo = remedy_text(remedy)
    found: dict[str, str] = {}
    for name, reason in reasons.items():
        found[name] = f"{run.location(name)}: {reason}; {todo}"
    return found


def wrong_footers(
    run: Store, ledger: Ledger, listed: Mapping[str, Stamp], remedy: Remedy
) -> dict[str, str]:
    """File -> what is wrong, of those whose footer is damaged or counts other rows.

    Files with the size and date they had when they were folded are not opened again.
    """
    seen = _stamps_when_folded(ledger)
    counts = ledger.files["rows"].to_pylist()
    rows = dict(zip(ledger.names, counts, strict=True))

    def wrong(name: str) -> tuple[str, str] | None:
        try:
            with run.reading(name, remedy):
                _check_footer(run, name, rows[name])
        except UnreadableError:
            raise
        except IntegrityError as error:
            return name, str(error)
        return None

    unseen: list[str] = []
    for name in rows:
        stamp = listed.get(name)
        if stamp is not None and stamp != seen.get(name):
            unseen.append(name)
    found = each_of(wrong, unseen)
    return dict(pair for pair in found if pair is not None)


def _stamps_when_folded(ledger: Ledger) -> dict[str, Stamp]:
    """Folded file -> its size and date when its rows were read."""
    names = ledger.folded["file"].to_pylist()
    sizes = ledger.folded["size"].to_pylist()
    dates = ledger.folded["file_date"].to_pylist()
    return dict(zip(names, map(Stamp, sizes, dates), strict=True))


def _check_footer(run: Store, name: str, rows: int) -> None:
    """Raises what pyarrow raises for a damaged footer, ValueError for one with other rows."""
    with run.filesystem.open_input_file(run.path(name)) as file:
        found = open_parquet(file).metadata.num_rows
    if found != rows:
        raise ValueError(f"{found} rows, {rows} were committed")
