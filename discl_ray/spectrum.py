# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""The seam between the phases: open a committed spectrum, verify it, filter it, count it.

    spectrum/<shard>.parquet   SPECTRUM, rows by source, λ, replica and attempt; a source's rows lie in one row group
    commits/<shard>.json       names the shard's files with their SHA-256; written last

Readers see committed shards only. A file that no commit names does not exist for them. They open what commits name, wherever it
lies: until 0.1 a shard had a file for each λ, spectrum/lam_pct=N/<shard>.parquet, and both may lie in one run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from discl_ray.calls import advice
from discl_ray.config import Config
from discl_ray.core.filter import KEPT, FilterConfig, judge
from discl_ray.core.ids import sha256
from discl_ray.core.schema import FILE, SAMPLES, SPECTRUM
from discl_ray.core.storage import ROW_GROUP, Store, parquet_bytes
from discl_ray.errors import IntegrityError, SetupError
from discl_ray.nearest import describe_nearest
from discl_ray.run import MANIFEST

SAMPLES_AT = "samples.json"
"""Names the folder of the samples a spectrum was made from; it lies beside the spectrum's."""

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


REMAKE = f"{advice('generate')}, which makes it again"
"""What to do about a file that is gone; one that is damaged is deleted before, or found damaged and written anew."""

SAMPLES_AGAIN = "run the command again, which reads the data again"

INDISPENSABLE = ("gid", "sample_id", "label", "role", "lam_pct", "replica", "attempt", "status", "text_sim")
"""Columns that every spectrum has, whatever its age."""


def check_generated(generated: Store, wanted: Config | None = None) -> None:
    """Raises SetupError unless the spectrum is complete; with the configuration it is for, that says what there is instead."""
    if not generated.exists(MANIFEST):
        found = "" if wanted is None else describe_nearest(generated, wanted)
        raise SetupError(f"{generated.base}: no complete spectrum for this configuration; {found or advice('generate')}")
    remedy = f"{REMAKE}, without making an image again"
    with generated.reading(MANIFEST, remedy):
        shards = int(generated.read_json(MANIFEST, remedy)["shards"])
    there = len(generated.list(COMMITS, ".json"))
    if there < shards:
        raise SetupError(
            f"{generated.path(COMMITS)}: {shards - there} of {shards} shards have no commit record any more; "
            f"{advice('generate')}, which makes their images again"
        )


def samples_of(run: Store) -> Store:
    """The folder of the samples a spectrum was made from."""
    beside = Store(run.filesystem, run.base.rsplit("/", 1)[0])
    with run.reading(SAMPLES_AT, REMAKE):
        return beside.within(run.read_json(SAMPLES_AT, REMAKE)["directory"])


def read_split(run: Store, split: str, columns: list[str] | None = None) -> pa.Table:
    """SAMPLES rows of one split; images in files as paths. `test` is for `discl_ray.evaluate` alone."""
    store = samples_of(run)
    tables = [store.read_table(name, columns, SAMPLES_AGAIN) for name in store.list(split, ".parquet")]
    schema = SAMPLES if columns is None else pa.schema([SAMPLES.field(name) for name in columns])
    return pa.concat_tables([schema.empty_table(), *tables], promote_options="default").select(schema.names)


def class_names(run: Store) -> tuple[str, ...]:
    """Class names by label, of all splits."""
    store = samples_of(run)
    with store.reading(MANIFEST, SAMPLES_AGAIN):
        return tuple(store.read_json(MANIFEST, SAMPLES_AGAIN)["classes"])


def write_shard(run: Store, shard_id: str, table: pa.Table, classes: Sequence[str]) -> None:
    """Writes a shard's SPECTRUM rows from SCORED ones and the class names by label, then its commit record, last.

    Names come from content, so a repeated attempt overwrites itself with the same bytes.
    """
    table = spectrum_rows(table, classes)
    name, data = f"{DATA}/{shard_id}.parquet", parquet_bytes(table, group_starts(table))
    run.write(name, data)
    files = [{"name": name, "rows": table.num_rows, "sha256": sha256(data)}]
    status = Counter(table["status"].to_pylist())
    run.write_json(f"{COMMITS}/{shard_id}.json", {"shard_id": shard_id, "files": files, "status": dict(status)})


def spectrum_rows(scored: pa.Table, classes: Sequence[str]) -> pa.Table:
    """SPECTRUM of SCORED rows and the class names by label, in the order they are stored in."""
    names = pa.array(classes, pa.string()).take(scored["label"])
    table = scored.append_column("class_name", names).select(SPECTRUM.names)
    # Metadata is lost on the way through Ray, and `datasets` needs it.
    return table.sort_by([(name, "ascending") for name in ORDER]).combine_chunks().cast(SPECTRUM)


def group_starts(table: pa.Table) -> list[int]:
    """The rows at which row groups begin, so that none divides a source and none that is full takes another one."""
    ids = table["sample_id"].to_numpy(zero_copy_only=False)
    sizes = pc.fill_null(pc.binary_length(pc.struct_field(table["image"], "bytes")), 0)
    before = np.concatenate([[0], np.cumsum(sizes.to_numpy(), dtype=np.int64)])
    starts = [0]
    for begin in (np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist():
        full = begin - starts[-1] >= ROW_GROUP or before[begin] - before[starts[-1]] >= GROUP_BYTES
        if full:
            starts.append(begin)
    return starts


def committed(run: Store) -> dict[str, Any]:
    """Commit records by shard."""
    return {record["shard_id"]: record for record in _each(partial(_read_commit, run), run.list(COMMITS, ".json"))}


def committed_ids(run: Store) -> set[str]:
    """Shards that have a commit record; none is read."""
    return {name.rpartition("/")[2].removesuffix(".json") for name in run.list(COMMITS, ".json")}


def _read_commit(run: Store, name: str) -> dict[str, Any]:
    """A commit record.

    Raises IntegrityError for one that is damaged, or of a layout that is not known here.
    """
    remedy = f"delete it and {advice('generate')}, which makes its images again"
    with run.reading(name, remedy):
        record = run.read_json(name, remedy)
        if not all({"name", "rows", "sha256"} <= file.keys() for file in record["files"]) or "shard_id" not in record:
            raise KeyError("no record of a shard")
        return record


def make_again(run: Store, *shards: str) -> str:
    """What to do about damaged files of some shards, by their ids."""
    names = ", ".join(run.path(f"{COMMITS}/{shard}.json") for shard in shards[:NAMED])
    more = f" and the records of {len(shards) - NAMED} more" if len(shards) > NAMED else ""
    which = "its" if len(shards) == 1 else "their"
    return f"delete {names}{more} and {advice('generate')}, which makes {which} images again"


def shard_of(file: str) -> str:
    """The shard whose rows a committed file holds, in any layout."""
    return file.rpartition("/")[2].removesuffix(".parquet")


def committed_files(run: Store) -> list[str]:
    """Names of the files with the committed rows, sorted."""
    return sorted(file["name"] for record in committed(run).values() for file in record["files"])


def open_spectrum(run: Store, filter_config: FilterConfig, columns: list[str] | None = None) -> pa.Table:
    """Every committed row with `kept` and `reason`; `columns` limits what is read besides what the filter needs.

    `file` among the columns names the file a row lies in. Without `image` among them no image is read.
    """
    scores = ["text_sim", "text_rank", "source_text_sim", "source_text_rank"]
    needed = ["sample_id", "role", "lam_pct", "replica", "attempt", "status", "error", *scores, "gid", "label"]
    wanted = SPECTRUM.names if columns is None else list(dict.fromkeys([*columns, *needed]))
    schema = pa.schema([FILE if name == FILE.name else SPECTRUM.field(name) for name in wanted])

    def read(name: str) -> pa.Table:
        table = run.read_table(name, wanted, make_again(run, shard_of(name)))
        lacking = [column for column in INDISPENSABLE if column in wanted and column not in table.column_names]
        if lacking:
            raise IntegrityError(f"{run.path(name)}: no column {', '.join(lacking)}: a layout that this version does not know")
        return table.append_column(FILE, pa.repeat(name, table.num_rows)) if FILE.name in wanted else table

    # a spectrum scored before a column was added has nulls there
    tables = [schema.empty_table(), *_each(read, committed_files(run))]
    table = pa.concat_tables(tables, promote_options="default").select(schema.names)
    return judge(table.sort_by([(name, "ascending") for name in ORDER]), filter_config)


def with_images(run: Store, rows: pa.Table) -> pa.Table:
    """Rows of a spectrum (`gid`, `file`) with their images; of the files, only the row groups that hold one are read."""
    found = [pa.schema([SPECTRUM.field(name) for name in ("gid", "image")]).empty_table()]
    for name in rows["file"].unique().to_pylist():
        wanted = rows["gid"].filter(pc.equal(rows["file"], name)).combine_chunks()
        remedy = make_again(run, shard_of(name))
        with run.reading(name, remedy), run.filesystem.open_input_file(run.path(name)) as source:
            file = pq.ParquetFile(source)
            for group in range(file.num_row_groups):
                gids = file.read_row_group(group, ["gid"], use_threads=False)["gid"]
                if not pc.any(pc.is_in(gids, wanted)).as_py():
                    continue
                whole = file.read_row_group(group, ["gid", "image"], use_threads=False)
                found.append(whole.filter(pc.is_in(whole["gid"], wanted)))
    images = pa.concat_tables(found, promote_options="default").combine_chunks()
    places = pc.index_in(rows["gid"], images["gid"].combine_chunks())
    return rows.append_column(SPECTRUM.field("image"), images["image"].take(places))


def drop_strays(run: Store) -> None:
    """Deletes data files that no commit names: what a shard begun in the older layout left. Not while shards are being made."""
    there = [name for folder in (DATA, *(f"{DATA}/{f}" for f in run.folders(DATA))) for name in run.list(folder, ".parquet")]
    for name in set(there) - set(committed_files(run)):
        run.delete(name)


def _each(function: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """A function of every name, several at once, in their order."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, names))


def verify(run: Store, plan: pa.Table) -> None:
    """Raises IntegrityError unless every planned row is committed once, in a file whose bytes are the recorded ones."""
    seen: Counter[str] = Counter()
    damaged: dict[str, str] = {}
    for shard_id, record in committed(run).items():
        for file in record["files"]:
            if not run.exists(file["name"]):
                damaged.setdefault(shard_id, f"{run.path(file['name'])}: is gone")
            elif sha256(run.read(file["name"])) != file["sha256"]:
                damaged.setdefault(shard_id, f"{run.path(file['name'])}: its bytes differ from its commit")
            else:
                seen.update(run.read_table(file["name"], ["gid"])["gid"].to_pylist())
    if damaged:
        more = f" (and {len(damaged) - 1} shards more)" if len(damaged) > 1 else ""
        raise IntegrityError(f"{min(damaged.values())}{more}; {make_again(run, *sorted(damaged))}")
    planned = set(plan["gid"].to_pylist())
    if missing := planned - set(seen):
        raise IntegrityError(f"{run.base}: {len(missing)} planned images are not committed; run generate again")
    if foreign := set(seen) - planned:
        raise IntegrityError(f"{run.base}: {len(foreign)} committed images are not in the plan, e.g. {min(foreign)}")
    if twice := [gid for gid, count in seen.items() if count > 1]:
        raise IntegrityError(f"{run.base}: {len(twice)} images are committed twice, e.g. {min(twice)}")


def count_verdicts(table: pa.Table) -> dict[int, Counter[str]]:
    """λ -> verdicts: `kept`, or the reason of the rejection."""
    counts: dict[int, Counter[str]] = {}
    for lam_pct, reason in zip(table["lam_pct"].to_pylist(), table["reason"].to_pylist(), strict=True):
        counts.setdefault(lam_pct, Counter())["kept" if reason == KEPT else reason] += 1
    return dict(sorted(counts.items()))
