"""A spectrum's committed rows: scores and verdicts without images, and images of some rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from discl_ray.core.columns import any_true, is_in, places_in, rows_in, rows_where
from discl_ray.core.schema import FILE, SPECTRUM
from discl_ray.core.storage import Store, open_parquet
from discl_ray.errors import IntegrityError
from discl_ray.spectrum.commit import ORDER, committed_files, each_of
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.filter import KEPT, judge
from discl_ray.spectrum.of_another_tool import conform
from discl_ray.spectrum.remedies import COMMITS, images_again

FILTERED_BY = (
    *("sample_id", "role", "lam_pct", "replica", "attempt", "status", "error"),
    *("text_sim", "text_rank", "image_sim", "source_text_sim", "source_text_rank", "gid", "label"),
)
"""Columns that the filter needs, `image_sim` where it is one from outside."""

INDISPENSABLE = (
    *("gid", "sample_id", "label", "role", "lam_pct", "replica", "attempt", "status", "text_sim"),
)
"""Columns that every spectrum has, whatever version made it."""


def open_spectrum(
    run: Store,
    filter_config: FilterConfig,
    columns: Sequence[str] | None = None,
    files: Sequence[str] | None = None,
) -> pa.Table:
    """Every committed row with `kept` and `reason`, sorted by ORDER.

    `columns` limits what is read besides what the filter needs. `file` among them names the file
    that a row lies in; without `image` among them no image is read. `files` are the committed
    ones, where they are known already. Columns that were added since a spectrum was scored are
    null.
    """
    wanted = SPECTRUM.names if columns is None else list(dict.fromkeys([*columns, *FILTERED_BY]))
    schema = pa.schema([FILE if name == FILE.name else SPECTRUM.field(name) for name in wanted])
    read = partial(_read_file, run, wanted)
    tables = each_of(read, committed_files(run) if files is None else files)
    rows = pa.concat_tables([schema.empty_table(), *tables], promote_options="default")
    ordered = rows.select(schema.names).sort_by([(name, "ascending") for name in ORDER])
    return judge(ordered, filter_config)


def _read_file(run: Store, wanted: list[str], name: str) -> pa.Table:
    """The wanted columns of a file; raises IntegrityError if it lacks an indispensable one."""
    remedy = partial(images_again, run)
    table = run.read_table(name, wanted, remedy)
    present = table.column_names
    lacking = [column for column in INDISPENSABLE if column in wanted and column not in present]
    if lacking:
        shard = name.rpartition("/")[2].removesuffix(".parquet")
        record = run.path(f"{COMMITS}/{shard}.json")
        raise IntegrityError(
            f"{run.path(name)}: no column {', '.join(lacking)}: a layout that this version does "
            "not know; open it with the version that made it, "
            f"or delete {record} and {images_again(run)}"
        )
    schema = pa.schema([SPECTRUM.field(column) for column in present])
    table = conform(table, schema, run.path(name))
    if FILE.name not in wanted:
        return table
    return table.append_column(FILE, pa.repeat(name, table.num_rows))


def with_images(run: Store, rows: pa.Table) -> pa.Table:
    """Rows of a spectrum (`gid`, `file`) with their images.

    Of the files, only the row groups that hold one are read.
    """
    images = [pa.schema([SPECTRUM.field(name) for name in ("gid", "image")]).empty_table()]
    for name in rows["file"].unique().to_pylist():
        images.extend(_read_images(run, name, rows_where(rows, file=name)["gid"]))
    found = pa.concat_tables(images, promote_options="default").combine_chunks()
    places = places_in(rows["gid"], found["gid"])
    return rows.append_column(SPECTRUM.field("image"), found["image"].take(places))


def _read_images(run: Store, name: str, gids: pa.ChunkedArray) -> list[pa.Table]:
    """`gid` and `image` of some rows of a file, one table for each row group that holds one."""
    found: list[pa.Table] = []
    path = run.path(name)
    remedy = partial(images_again, run)
    with run.reading(name, remedy), run.filesystem.open_input_file(path) as source:
        file = open_parquet(source)
        for group in range(file.num_row_groups):
            held = file.read_row_group(group, ["gid"], use_threads=False)["gid"]
            if any_true(is_in(held, gids)):
                whole = file.read_row_group(group, ["gid", "image"], use_threads=False)
                found.append(rows_in(whole, "gid", gids))
    return found


def count_verdicts(table: pa.Table) -> dict[int, Counter[str]]:
    """λ in percent -> verdicts: `kept`, or the reason of the rejection."""
    counts: dict[int, Counter[str]] = {}
    levels, reasons = table["lam_pct"].to_pylist(), table["reason"].to_pylist()
    for lam_pct, reason in zip(levels, reasons, strict=True):
        verdict = "kept" if reason == KEPT else reason
        counts.setdefault(lam_pct, Counter())[verdict] += 1
    return dict(sorted(counts.items()))


def grid_of(run: Store, files: Sequence[str] | None = None) -> tuple[int, ...]:
    """λ in ascending integer percents at which there are committed images to train on.

    `files` are the committed ones, where they are known already.
    """
    remedy = partial(images_again, run)
    levels: set[int] = set()
    for name in committed_files(run) if files is None else files:
        rows = run.read_table(name, ["role", "lam_pct"], remedy)
        levels.update(rows_where(rows, role="train")["lam_pct"].unique().to_pylist())
    return tuple(sorted(levels))
