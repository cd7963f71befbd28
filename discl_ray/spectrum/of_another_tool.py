"""What a spectrum that another tool wrote has to hold, looked at before anything is trained on it.

Our own tables are right by how they are made. Of another tool's every column and value that training rests on is checked once,
without an image being read.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from discl_ray.core.columns import (
    any_true,
    between,
    both,
    equal,
    fill_null,
    is_in,
    is_null,
    is_valid,
    negate,
)
from discl_ray.core.lam import REAL
from discl_ray.core.schema import SAMPLES, SPECTRUM
from discl_ray.core.splits import SPLITS
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError

NEEDED = (
    "gid",
    "sample_id",
    "label",
    "role",
    "lam_pct",
    "replica",
    "attempt",
    "status",
    "text_sim",
    "text_rank",
    "image",
)
"""Columns that are trained on or filtered by."""

NEEDED_OF_SAMPLES = ("sample_id", "label", "class_name", "split", "image")

ROLES = ("train", "probe")

STATES = ("ok", "error", "crashed")


def conform(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """A table with the types of a schema, whose columns it has; null columns may be of any type.

    Raises IntegrityError naming the column whose values are of another kind.
    """
    columns: list[pa.ChunkedArray] = []
    for field in schema:
        column = table[field.name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        try:
            columns.append(column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise IntegrityError(
                f"{where}: column {field.name} is {table[field.name].type}; values of type {field.type} are needed"
            ) from error
    return pa.table(columns, schema=schema)


def check_spectrum(
    store: Store, files: Sequence[str], samples: Store, classes: Sequence[str]
) -> None:
    """Raises IntegrityError naming the file and the first thing in it that cannot be trained on."""
    for name in files:
        _check_columns(store, name, NEEDED, SPECTRUM)
    labels = _labels(samples)
    seen: set[str] = set()
    rows = 0
    for name in files:
        where = store.path(name)
        names = [column for column in NEEDED if column != "image"]
        table = store.read_table(name, names)
        table = conform(table, pa.schema([SPECTRUM.field(column) for column in names]), where)
        _check_values(table, where, classes)
        _check_sources(table, where, labels)
        gids = table["gid"].to_pylist()
        seen.update(gids)
        rows += len(gids)
        if len(seen) < rows:
            raise IntegrityError(
                f"{where}: a gid is duplicated, here or in a file before; every image needs one of its own"
            )
    if not rows:
        raise IntegrityError(f"{store.base}: its files hold no row")


def check_samples(samples: Store) -> None:
    """Raises IntegrityError unless the tables of the real images have their columns, and no image is in two splits."""
    split_of: dict[str, str] = {}
    for split in SPLITS:
        for name in samples.list(split, ".parquet"):
            _check_columns(samples, name, NEEDED_OF_SAMPLES, SAMPLES)
            table = samples.read_table(name, ["sample_id", "split"])
            if table["split"].unique().to_pylist() not in ([split], []):
                raise IntegrityError(
                    f"{samples.path(name)}: its rows say another split than {split}, the folder it lies in"
                )
            for sample_id in table["sample_id"].to_pylist():
                if sample_id in split_of:
                    raise IntegrityError(
                        f"{samples.path(name)}: sample_id {sample_id} is duplicated; it is in {split_of[sample_id]} as well"
                    )
                split_of[sample_id] = split


def _check_columns(store: Store, name: str, needed: Sequence[str], schema: pa.Schema) -> None:
    where = store.path(name)
    with store.reading(name, "write it again"), store.filesystem.open_input_file(where) as file:
        there = pq.ParquetFile(file).schema_arrow
    missing = [column for column in needed if column not in there.names]
    if missing:
        raise IntegrityError(
            f"{where}: no column {', '.join(missing)}; {', '.join(needed)} are needed"
        )
    if not pa.types.is_struct(there.field("image").type):
        wanted = schema.field("image").type
        raise IntegrityError(
            f"{where}: column image is {there.field('image').type}; {wanted} is needed"
        )


def _check_values(table: pa.Table, where: str, classes: Sequence[str]) -> None:
    rules = {
        "gid": (is_valid(table["gid"]), "text in every row"),
        "lam_pct": (between(table["lam_pct"], 0, REAL - 1), "whole percents from 0 to 99"),
        "role": (is_in(table["role"], ROLES), " or ".join(ROLES)),
        "status": (is_in(table["status"], STATES), ", ".join(STATES)),
        "label": (
            between(table["label"], 0, len(classes) - 1),
            f"0 to {len(classes) - 1}, the labels of the real images",
        ),
    }
    for column, (right, wanted) in rules.items():
        wrong = table[column].filter(negate(fill_null(right, False)))
        if len(wrong):
            raise IntegrityError(
                f"{where}: column {column} holds {wrong[0].as_py()!r}; allowed: {wanted}"
            )
    made = equal(table["status"], "ok")
    for column in ("text_sim", "text_rank"):
        if any_true(both(made, is_null(table[column]))):
            raise IntegrityError(
                f"{where}: column {column} is null for an image that was made; the filter goes by it"
            )


def _check_sources(table: pa.Table, where: str, labels: dict[str, int]) -> None:
    for sample_id, label in set(
        zip(table["sample_id"].to_pylist(), table["label"].to_pylist(), strict=True)
    ):
        if sample_id not in labels:
            raise IntegrityError(
                f"{where}: sample_id {sample_id!r} is no real image of samples/train or samples/val"
            )
        if labels[sample_id] != label:
            raise IntegrityError(
                f"{where}: label {label} of {sample_id!r}, which is {labels[sample_id]} among the real images"
            )


def _labels(samples: Store) -> dict[str, int]:
    """Real images that may have a spectrum, with their labels."""
    found: dict[str, int] = {}
    for split in ("train", "val"):
        for name in samples.list(split, ".parquet"):
            table = samples.read_table(name, ["sample_id", "label"])
            found.update(
                zip(table["sample_id"].to_pylist(), table["label"].to_pylist(), strict=True)
            )
    return found
