"""A spectrum's committed rows: scores and verdicts without images, and images of some rows."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from discl_ray.core.columns import any_true, is_in, places_in, rows_in, rows_where
from discl_ray.core.schema import FILE, SPECTRUM
from discl_ray.core.storage import Store, open_parquet
from discl_ray.errors import IntegrityError
from discl_ray.spectrum.commit import COMMITS, ORDER, committed_files, each_of
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.filter import KEPT, judge
from discl_ray.spectrum.of_another_tool import conform
from discl_ray.spectrum.remedies import images_again

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
"""Columns that every spectrum has, whatever its age."""


def open_spectrum(
    run: Store, filter_config: FilterConfig, columns: list[str] | None = None
) -> pa.Table:
    """Every committed row with `kept` and `reason`; `columns` limits what is read besides what the filter needs.

    `file` among the columns names the file a row lies in. Without `image` among them no image is read.
    """
    scores = ["text_sim", "text_rank", "image_sim", "source_text_sim", "source_text_rank"]
    needed = [
        "sample_id",
        "role",
        "lam_pct",
        "replica",
        "attempt",
        "status",
        "error",
        *scores,
        "gid",
        "label",
    ]
    wanted = SPECTRUM.names if columns is None else list(dict.fromkeys([*columns, *needed]))
    schema = pa.schema([FILE if name == FILE.name else SPECTRUM.field(name) for name in wanted])

    remedy = images_again(run)

    def read(name: str) -> pa.Table:
        table = run.read_table(name, wanted, remedy)
        lacking = [
            column
            for column in INDISPENSABLE
            if column in wanted and column not in table.column_names
        ]
        if lacking:
            record = run.path(f"{COMMITS}/{name.rpartition('/')[2].removesuffix('.parquet')}.json")
            raise IntegrityError(
                f"{run.path(name)}: no column {', '.join(lacking)}: a layout that this version does not know; "
                f"open it with the version that made it, or delete {record} and {remedy}"
            )
        table = conform(
            table,
            pa.schema([SPECTRUM.field(column) for column in table.column_names]),
            run.path(name),
        )
        return (
            table.append_column(FILE, pa.repeat(name, table.num_rows))
            if FILE.name in wanted
            else table
        )

    # a spectrum scored before a column was added has nulls there
    tables = [schema.empty_table(), *each_of(read, committed_files(run))]
    table = pa.concat_tables(tables, promote_options="default").select(schema.names)
    return judge(table.sort_by([(name, "ascending") for name in ORDER]), filter_config)


def with_images(run: Store, rows: pa.Table) -> pa.Table:
    """Rows of a spectrum (`gid`, `file`) with their images; of the files, only the row groups that hold one are read."""
    remedy = images_again(run)
    found = [pa.schema([SPECTRUM.field(name) for name in ("gid", "image")]).empty_table()]
    for name in rows["file"].unique().to_pylist():
        wanted = rows_where(rows, file=name)["gid"]
        with run.reading(name, remedy), run.filesystem.open_input_file(run.path(name)) as source:
            file = open_parquet(source)
            for group in range(file.num_row_groups):
                gids = file.read_row_group(group, ["gid"], use_threads=False)["gid"]
                if not any_true(is_in(gids, wanted)):
                    continue
                whole = file.read_row_group(group, ["gid", "image"], use_threads=False)
                found.append(rows_in(whole, "gid", wanted))
    images = pa.concat_tables(found, promote_options="default").combine_chunks()
    places = places_in(rows["gid"], images["gid"])
    return rows.append_column(SPECTRUM.field("image"), images["image"].take(places))


def count_verdicts(table: pa.Table) -> dict[int, Counter[str]]:
    """λ -> verdicts: `kept`, or the reason of the rejection."""
    counts: dict[int, Counter[str]] = {}
    for lam_pct, reason in zip(
        table["lam_pct"].to_pylist(), table["reason"].to_pylist(), strict=True
    ):
        counts.setdefault(lam_pct, Counter())["kept" if reason == KEPT else reason] += 1
    return dict(sorted(counts.items()))


def grid_of(run: Store) -> tuple[int, ...]:
    """λ in ascending integer percents at which there are committed images to train on."""
    remedy = images_again(run)
    levels: set[int] = set()
    for name in committed_files(run):
        rows = run.read_table(name, ["role", "lam_pct"], remedy)
        levels |= set(rows_where(rows, role="train")["lam_pct"].unique().to_pylist())
    return tuple(sorted(levels))
