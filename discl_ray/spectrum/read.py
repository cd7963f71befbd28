"""A spectrum's committed rows: scores and verdicts without images, and images of some rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from discl_ray.core.columns import any_true, is_in, places_in, rows_in, rows_where
from discl_ray.core.schema import FILE, SPECTRUM
from discl_ray.core.storage import Store, open_parquet
from discl_ray.errors import IntegrityError
from discl_ray.spectrum.commit import STORED_BY
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.files import committed_files
from discl_ray.spectrum.filter import KEPT, judge
from discl_ray.spectrum.of_another_tool import conform
from discl_ray.spectrum.records import each_of
from discl_ray.spectrum.remedies import COMMITS, images_again

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
    files: Sequence[str] | None = None,
) -> pa.Table:
    """Every committed row with `kept` and `reason`, sorted by STORED_BY.

    `columns` limits what is read besides what the filter needs. `file` among them names the file
    that a row lies in; without `image` among them no image is read. `files` are the committed
    ones, where they are known already. Columns that were added since a spectrum was scored are
    null.
    """
    wanted = SPECTRUM.names
    if columns is not None:
        # The filter's columns come with any others; each is read once.
        wanted = list(dict.fromkeys([*columns, *FILTERED_BY]))
    if files is None:
        files = committed_files(run)
    read = partial(_read_file, run, wanted)
    schema = pa.schema([_field(name) for name in wanted])
    # Files of an earlier version lack later columns; the empty table in front brings them, as null.
    tables = [schema.empty_table(), *each_of(read, files)]
    rows = pa.concat_tables(tables, promote_options="default")
    ordered = rows.select(schema.names).sort_by(STORED_BY)
    return judge(ordered, filter_config)


def _field(name: str) -> pa.Field:
    """Name and type of a column that can be asked for."""
    if name == FILE.name:
        return FILE
    return SPECTRUM.field(name)


def _read_file(run: Store, wanted: list[str], name: str) -> pa.Table:
    """The wanted columns of a file; raises IntegrityError if it lacks an indispensable one."""
    remedy = partial(images_again, run)
    table = run.read_table(name, wanted, remedy)
    present = table.column_names
    _check_layout(run, name, set(wanted) - set(present))
    schema = pa.schema([SPECTRUM.field(column) for column in present])
    table = conform(table, schema, run.path(name))
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
    record = run.path(f"{COMMITS}/{shard}.json")
    columns = ", ".join(lacking)
    raise IntegrityError(
        f"{run.path(name)}: no column {columns}: a layout that this version does "
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
    for name in rows["file"].unique().to_pylist():
        of_file = rows_where(rows, file=name)
        images.extend(_read_images(run, name, of_file["gid"]))
    found = pa.concat_tables(images, promote_options="default").combine_chunks()
    places = places_in(rows["gid"], found["gid"])
    in_order = found["image"].take(places)
    return rows.append_column(SPECTRUM.field("image"), in_order)


def _read_images(run: Store, name: str, gids: pa.ChunkedArray) -> list[pa.Table]:
    """`gid` and `image` of some rows of a file, one table for each row group that holds one."""
    found: list[pa.Table] = []
    remedy = partial(images_again, run)
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
    counts: dict[int, Counter[str]] = {}
    levels = table["lam_pct"].to_pylist()
    reasons = table["reason"].to_pylist()
    for lam_pct, reason in zip(levels, reasons, strict=True):
        verdict = "kept" if reason == KEPT else reason
        of_level = counts.setdefault(lam_pct, Counter())
        of_level[verdict] += 1
    return dict(sorted(counts.items()))


def grid_of(run: Store, files: Sequence[str] | None = None) -> tuple[int, ...]:
    """λ in ascending integer percents at which there are committed images to train on.

    `files` are the committed ones, where they are known already.
    """
    if files is None:
        files = committed_files(run)
    remedy = partial(images_again, run)
    levels: set[int] = set()
    for name in files:
        rows = run.read_table(name, ["role", "lam_pct"], remedy)
        trains = rows_where(rows, role="train")
        levels.update(trains["lam_pct"].unique().to_pylist())
    return tuple(sorted(levels))
