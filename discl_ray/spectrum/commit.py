"""A shard is written whole, and its commit record last.

    spectrum/<shard>.parquet   SPECTRUM, rows by source, λ, replica and attempt; a source's rows lie in one row group
    commits/<shard>.json       names the shard's files with their SHA-256

Readers see committed shards only: a file that no commit names does not exist for them.
"""

from __future__ import annotations

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
from discl_ray.core.run_directory import CONFIG, MANIFEST, PLAN_FILE
from discl_ray.core.schema import SPECTRUM
from discl_ray.core.storage import ROW_GROUP, Store, parquet_bytes
from discl_ray.errors import IntegrityError, UnreadableError
from discl_ray.spectrum.remedies import images_again, remake

COMMITS = "commits"


DATA = "spectrum"


GROUP_BYTES = 8 * 2**20
"""Image bytes after which a row group takes no further source. A group of 8 MB or 64 rows is read in one go, and its share of the
footer, some 3 kB, is little beside it; of photographs it is one source, of digits a few."""


ORDER = ("sample_id", "lam_pct", "replica", "attempt")
"""How rows lie."""


NAMED = 10
"""Shards a message names."""


READERS = 16
"""Files opened at once: mostly they wait for a disk or a network."""


T = TypeVar("T")


MADE_NOW = "its images are made again"


def write_shard(run: Store, shard_id: str, table: pa.Table, classes: Sequence[str]) -> None:
    """Writes a shard's SPECTRUM rows from SCORED ones and the class names by label, then its commit record, last.

    Names come from content, so a repeated attempt overwrites itself with the same bytes.
    """
    table = spectrum_rows(table, classes)
    name, data = f"{DATA}/{shard_id}.parquet", parquet_bytes(table, group_starts(table))
    run.write(name, data)
    files = [{"name": name, "rows": table.num_rows, "sha256": sha256(data)}]
    status = Counter(table["status"].to_pylist())
    run.write_json(
        f"{COMMITS}/{shard_id}.json", {"shard_id": shard_id, "files": files, "status": dict(status)}
    )


def spectrum_rows(scored: pa.Table, classes: Sequence[str]) -> pa.Table:
    """SPECTRUM of SCORED rows and the class names by label, in the order they are stored in."""
    names = pa.array(classes, pa.string()).take(scored["label"])
    table = scored.append_column("class_name", names).select(SPECTRUM.names)
    # Metadata is lost on the way through Ray, and `datasets` needs it.
    return table.sort_by([(name, "ascending") for name in ORDER]).combine_chunks().cast(SPECTRUM)


def group_starts(table: pa.Table) -> list[int]:
    """The rows at which row groups begin, so that none divides a source and none that is full takes another one."""
    ids = table["sample_id"].to_numpy(zero_copy_only=False)
    sizes = fill_null(lengths(member(table["image"], "bytes")), 0)
    before = np.concatenate([[0], np.cumsum(sizes.to_numpy(), dtype=np.int64)])
    starts = [0]
    for begin in (np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist():
        full = begin - starts[-1] >= ROW_GROUP or before[begin] - before[starts[-1]] >= GROUP_BYTES
        if full:
            starts.append(begin)
    return starts


def committed(run: Store) -> dict[str, Any]:
    """Commit records by shard."""
    remedy = images_again(run)
    return {
        r["shard_id"]: r
        for r in each_of(partial(_read_commit, run, remedy), run.list(COMMITS, ".json"))
    }


def committed_ids(run: Store) -> set[str]:
    """Shards that have a commit record; none is read."""
    return {name.rpartition("/")[2].removesuffix(".json") for name in run.list(COMMITS, ".json")}


def _read_commit(run: Store, remedy: str, name: str) -> dict[str, Any]:
    """A commit record.

    Raises IntegrityError for one that is damaged, or of a layout that is not known here.
    """
    with run.reading(name, remedy):
        record = run.read_json(name, remedy)
        shard = name.removeprefix(f"{COMMITS}/").removesuffix(".json")
        known = all({"name", "rows", "sha256"} <= file.keys() for file in record["files"])
        if not (known and record["files"] and record["shard_id"] == shard):
            raise ValueError("no record of this shard")
        return record


def drop_damaged(run: Store) -> set[str]:
    """Deletes the commit records of shards whose files are gone or are not what was recorded, and says so: they are made again.

    Returns the shards that are whole; every committed byte is read. Not while shards are being made. Raises UnreadableError if the
    disk does not give a file.
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
        more = f" (likewise {len(damaged) - 1} shards more)" if len(damaged) > 1 else ""
        print(f"  {min(damaged.values())}{more}", flush=True)
    for name in damaged:
        run.delete(name)
    return whole


def _check_bytes(run: Store, record: Mapping[str, Any], remedy: str) -> None:
    """Raises IntegrityError unless the files of a commit record hold the recorded bytes."""
    for file in record["files"]:
        with run.reading(file["name"], remedy):
            data = run.read(file["name"])
        if sha256(data) != file["sha256"]:
            raise IntegrityError(
                f"{run.path(file['name'])}: its bytes differ from its commit; {remedy}"
            )


def _records(run: Store, shards: Iterable[str]) -> str:
    """The commit records of some shards, by their paths."""
    names = sorted(shards)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(run.path(f"{COMMITS}/{shard}.json") for shard in names[:NAMED]) + more


def committed_files(run: Store) -> list[str]:
    """Names of the files with the committed rows, sorted; of another tool's spectrum, of all its files."""
    if is_of_another_tool(run):
        return run.list(DATA, ".parquet")
    return sorted(file["name"] for record in committed(run).values() for file in record["files"])


def content_of(run: Store) -> list[str]:
    """Hashes of the files with the committed rows, sorted."""
    if is_of_another_tool(run):
        return sorted(each_of(lambda name: sha256(run.read(name)), run.list(DATA, ".parquet")))
    return sorted(file["sha256"] for record in committed(run).values() for file in record["files"])


def is_of_another_tool(run: Store) -> bool:
    """Whether a folder holds images and nothing of ours; every file counts as committed then."""
    ours = any(run.exists(name) for name in (PLAN_FILE, CONFIG, MANIFEST)) or bool(
        run.list(COMMITS, ".json")
    )
    return not ours and bool(run.list(DATA, ".parquet"))


def drop_strays(run: Store) -> None:
    """Deletes data files that no commit names: what a shard begun in the older layout left. Not while shards are being made."""
    there = [name for files in data_files(run).values() for name in files]
    for name in set(there) - set(committed_files(run)):
        run.delete(name)


def data_files(run: Store) -> dict[str, list[str]]:
    """Folder -> files with rows, committed or not, in any layout; folders without any are left out."""
    folders = [DATA, *(f"{DATA}/{folder}" for folder in run.folders(DATA))]
    found = {folder: run.list(folder, ".parquet") for folder in folders}
    return {folder: names for folder, names in found.items() if names}


def each_of(function: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """A function of every name, several at once, in their order."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, names))


def verify(run: Store, plan: pa.Table, whole: Container[str] = ()) -> None:
    """Raises IntegrityError unless every planned row is committed once, in a file whose bytes are the recorded ones.

    The bytes of shards that are known to be `whole` are not read again.
    """
    remedy, shards = images_again(run), committed(run)
    ids: list[pa.ChunkedArray] = []
    for shard_id, record in shards.items():
        if shard_id not in whole:
            _check_bytes(run, record, remedy)
        tables = [run.read_table(file["name"], ["gid"], remedy) for file in record["files"]]
        ids.append(pa.concat_tables(tables)["gid"])
    gids = pa.chunked_array([chunk for column in ids for chunk in column.chunks], pa.string())
    missing = total(negate(is_in(plan["gid"], gids)))
    if missing:
        raise IntegrityError(
            f"{run.base}: {missing} planned images are not committed; {remake(run)}"
        )
    foreign = gids.filter(negate(is_in(gids, plan["gid"])))
    for found, what in (
        (foreign, "are not in the plan"),
        (duplicates(gids), "are committed twice"),
    ):
        if len(found):
            holders = [
                s for s, column in zip(shards, ids, strict=True) if any_true(is_in(column, found))
            ]
            count, first = len(found), min(found.to_pylist())
            raise IntegrityError(
                f"{run.base}: {count} committed images {what}, e.g. {first}; delete {_records(run, holders)} and {remake(run)}"
            )
