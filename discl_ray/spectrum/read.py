"""A spectrum's committed rows: scores and verdicts without images, and images of some rows."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Container, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from discl_ray.core.columns import any_true, is_in, places_in, rows_in, rows_where, sort_indices
from discl_ray.core.schema import FILE, SPECTRUM
from discl_ray.core.storage import Store, open_parquet
from discl_ray.errors import IntegrityError, UnreadableError
from discl_ray.spectrum.commit import STORED_BY
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.files import Ledger, read_ledger
from discl_ray.spectrum.filter import KEPT, judge
from discl_ray.spectrum.of_another_tool import conform
from discl_ray.spectrum.records import each_of
from discl_ray.spectrum.remedies import COMMITS, find_damage, images_again

log = logging.getLogger(__name__)

FILTERED_BY = (
    "sample_id",
    "role",
    "lam_pct",
    "replica",
    "attempt",
    "status",
    "error",
    "text_sim",
    "text_rank",
    "image_sim",
    "source_text_sim",
    "source_text_rank",
    "gid",
    "label",
)
"""Columns that the filter needs, `image_sim` where it is one from outside."""

INDISPENSABLE = (
    "gid",
    "sample_id",
    "label",
    "role",
    "lam_pct",
    "replica",
    "attempt",
    "status",
    "text_sim",
)
"""Columns that every spectrum has, whatever version made it."""


def open_spectrum(
    run: Store,
    filter_config: FilterConfig,
    columns: Sequence[str] | None = None,
    ledger: Ledger | None = None,
) -> pa.Table:
    """Every committed row with `kept` and `reason`, sorted by STORED_BY.

    `columns` limits what is read besides what the filter needs. `file` among them names the file
    that a row lies in; without `image` among them no image is read. `ledger` is what was read of
    the commits already. Columns that were added since a spectrum was scored are null.
    """
    wanted = SPECTRUM.names
    if columns is not None:
        # The filter's columns come with any others; each is read once.
        wanted = list(dict.fromkeys([*columns, *FILTERED_BY]))
    if ledger is None:
        ledger = read_ledger(run)
    rows = read_rows(run, wanted, ledger)
    return judge(_in_order(rows), filter_config)


def read_rows(run: Store, columns: Sequence[str], ledger: Ledger) -> pa.Table:
    """Some columns of every committed row, in no particular order; from the fold where it can be.

    Raises IntegrityError if a data file is damaged, UnreadableError if the disk or the network
    fails.
    """
    if "image" in columns:
        ledger = ledger.without_fold()
    parts: list[pa.Table] = []
    if ledger.folded.num_rows:
        try:
            parts.append(_read_fold(run, columns, ledger))
        except UnreadableError:
            raise
        except IntegrityError as error:
            log.info("%s", error)
            ledger = ledger.without_fold()
    parts.append(read_files(run, columns, ledger.unfolded))
    return pa.concat_tables(parts)


def _read_fold(run: Store, columns: Sequence[str], ledger: Ledger) -> pa.Table:
    """Some columns of the rows that lie in the fold; raises IntegrityError if it is damaged."""
    fold = ledger.fold
    remedy = "the shards are read one by one"
    every = ledger.folded.num_rows == fold.files.num_rows
    wanted = list(columns) if every else list({*columns, FILE.name})
    with run.reading(fold.table, remedy):
        rows = run.read_table(fold.table, wanted, remedy)
        if rows.num_rows != fold.rows:
            raise ValueError(f"{rows.num_rows} rows of {fold.rows}")
    if not every:
        rows = rows.filter(is_in(rows[FILE.name], ledger.folded["file"]))
    return rows.select(columns)


def read_files(run: Store, columns: Sequence[str], names: Sequence[str]) -> pa.Table:
    """Some columns of data files, one after the other; columns that a file lacks are null."""
    schema = pa.schema([_field(name) for name in columns])
    read = partial(_read_file, run, list(columns))
    # The empty table in front brings columns that no file has.
    tables = [schema.empty_table(), *each_of(read, names)]
    return pa.concat_tables(tables, promote_options="default").select(columns)


def _in_order(rows: pa.Table) -> pa.Table:
    """Rows sorted by STORED_BY."""
    keys = [rows[name].to_numpy() for name, _ in STORED_BY[1:]]
    # lexsort sorts by its last key first.
    order = np.lexsort([*reversed(keys), _ranks(rows["sample_id"])])
    if np.array_equal(order, np.arange(len(order))):
        return rows
    places = pa.array(order)
    ordered: dict[str, pa.ChunkedArray] = {}
    for name in rows.column_names:
        ordered[name] = rows[name].take(places)
        # Columns are released one by one; otherwise all would be in memory twice.
        rows = rows.drop_columns([name])
    return pa.table(ordered)


def _ranks(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """For each text its place among the distinct ones, sorted; shape (rows,).

    Sorting by these numbers is several times faster than by the texts.
    """
    encoded = texts.combine_chunks().dictionary_encode(null_encoding="encode")
    distinct = pa.table({"text": encoded.dictionary})
    order = sort_indices(distinct, ("text", "ascending")).to_numpy()
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks[encoded.indices.to_numpy()]


def _field(name: str) -> pa.Field:
    """Name and type of a column that can be asked for."""
    if name == FILE.name:
        return FILE
    return SPECTRUM.field(name)


def _read_file(run: Store, wanted: list[str], name: str) -> pa.Table:
    """The wanted columns of a file; raises IntegrityError if it lacks an indispensable one."""
    remedy = partial(find_damage, run)
    table = run.read_table(name, wanted, remedy)
    present = table.column_names
    _check_layout(run, name, set(wanted) - set(present))
    schema = pa.schema([SPECTRUM.field(column) for column in present])
    table = conform(table, schema, run.location(name))
    if FILE.name not in wanted:
        return table
    of_file = pa.repeat(name, table.num_rows)
    return table.append_column(FILE, of_file)


def _check_layout(run: Store, name: str, absent: Container[str]) -> None:
    """Raises IntegrityError if an indispensable column of a file is absent."""
    lacking = [column for column in INDISPENSABLE if column in absent]
    if not lacking:
        return
    file = name.rpartition("/")[2]
    shard = file.removesuffix(".parquet")
    record = run.location(f"{COMMITS}/{shard}.json")
    columns = ", ".join(lacking)
    raise IntegrityError(
        f"{run.location(name)}: no column {columns}: a layout that this version does "
        "not know; open it with the version that made it, "
        f"or delete {record} and {images_again(run)}"
    )


def with_images(run: Store, rows: pa.Table) -> pa.Table:
    """Rows of a spectrum (`gid`, `file`) with their images.

    Of the files, only the row groups that hold one are read. Raises IntegrityError if one is
    damaged, UnreadableError if the disk or the network fails.
    """
    schema = pa.schema([SPECTRUM.field("gid"), SPECTRUM.field("image")])
    images = [schema.empty_table()]
    by_file = rows.select(["file", "gid"]).group_by("file", use_threads=False)
    for of_file in by_file.aggregate([("gid", "list")]).to_pylist():
        gids = pa.array(of_file["gid_list"], pa.string())
        images.extend(_read_images(run, of_file["file"], gids))
    found = pa.concat_tables(images, promote_options="default").combine_chunks()
    places = places_in(rows["gid"], found["gid"])
    in_order = found["image"].take(places)
    return rows.append_column(SPECTRUM.field("image"), in_order)


def _read_images(run: Store, name: str, gids: pa.Array) -> list[pa.Table]:
    """`gid` and `image` of some rows of a file, one table for each row group that holds one."""
    found: list[pa.Table] = []
    remedy = partial(find_damage, run)
    with run.reading(name, remedy), run.filesystem.open_input_file(run.path(name)) as source:
        file = open_parquet(source)
        for group in range(file.num_row_groups):
            # The gids are a few kilobytes, the images megabytes: look before they are read.
            held = _read_group(file, group, ["gid"])
            if not any_true(is_in(held["gid"], gids)):
                continue
            whole = _read_group(file, group, ["gid", "image"])
            found.append(rows_in(whole, "gid", gids))
    return found


def _read_group(file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
    """Some columns of a row group."""
    # One thread, for the reason given in `Store.read_table`.
    return file.read_row_group(group, columns, use_threads=False)


def count_verdicts(table: pa.Table) -> dict[int, Counter[str]]:
    """λ in percent -> verdicts: `kept`, or the reason of the rejection."""
    by_verdict = table.group_by(["lam_pct", "reason"]).aggregate([([], "count_all")])
    counts: dict[int, Counter[str]] = {}
    for row in by_verdict.sort_by("lam_pct").to_pylist():
        verdict = "kept" if row["reason"] == KEPT else row["reason"]
        of_level = counts.setdefault(row["lam_pct"], Counter())
        of_level[verdict] = row["count_all"]
    return counts


def grid_of(run: Store, ledger: Ledger | None = None) -> tuple[int, ...]:
    """λ in ascending integer percents at which there are committed images to train on.

    `ledger` is what was read of the commits already.
    """
    if ledger is None:
        ledger = read_ledger(run)
    counted = ledger.files["levels"]
    if counted.null_count:
        # A record of an earlier version, or another tool's spectrum, does not say it.
        rows = read_rows(run, ["role", "lam_pct"], ledger)
        trains = rows_where(rows, role="train")
        return tuple(sorted(trains["lam_pct"].unique().to_pylist()))
    levels: set[int] = set()
    for text in counted.unique().to_pylist():
        of_role = json.loads(text).get("train", {})
        levels.update(int(lam_pct) for lam_pct in of_role)
    return tuple(sorted(levels))
