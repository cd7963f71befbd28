"""What a spectrum that another tool wrote must hold, checked before anything is trained on it.

Our own tables are right by construction. Of another tool's, every column and value that training
relies on is checked once, as Arrow columns and without reading an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from discl_ray.core.columns import (
    Mask,
    any_true,
    between,
    both,
    duplicates,
    equal,
    fill_null,
    is_in,
    is_null,
    is_valid,
    negate,
    not_equal,
    places_in,
    rows_where,
)
from discl_ray.core.lam import REAL
from discl_ray.core.schema import FILE, SAMPLES, SPECTRUM
from discl_ray.core.splits import SPLITS
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError

NEEDED = (
    *("gid", "sample_id", "label", "role", "lam_pct", "replica", "attempt", "status"),
    *("text_sim", "text_rank", "image"),
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
            given = table[field.name].type
            raise IntegrityError(
                f"{where}: column {field.name} is {given}; values of type {field.type} are needed"
            ) from error
    return pa.table(columns, schema=schema)


def check_spectrum(
    store: Store, files: Sequence[str], samples: Store, classes: Sequence[str]
) -> None:
    """Raises IntegrityError naming the file and the first thing in it that cannot be trained on."""
    for name in files:
        _check_columns(store, name, NEEDED, SPECTRUM)
    columns = [column for column in NEEDED if column != "image"]
    rows = _rows_of(store, files, columns, SPECTRUM)
    if not rows.num_rows:
        raise IntegrityError(f"{store.base}: its files hold no row")
    _check_values(rows, classes)
    _check_sources(rows, samples)
    twice = duplicates(rows["gid"])
    if len(twice):
        second = rows_where(rows, gid=twice[0].as_py())[FILE.name][1]
        raise IntegrityError(
            f"{second}: a gid is duplicated, here or in a file before; "
            "every image needs one of its own"
        )


def check_samples(samples: Store) -> None:
    """Raises IntegrityError unless the tables of the real images have their columns.

    The rows of a folder must be of its split, and no image may be in two.
    """
    parts: list[pa.Table] = []
    for split in SPLITS:
        files = samples.list(split, ".parquet")
        for name in files:
            _check_columns(samples, name, NEEDED_OF_SAMPLES, SAMPLES)
        rows = _rows_of(samples, files, ["sample_id", "split"], SAMPLES)
        others = rows.filter(fill_null(not_equal(rows["split"], split), True))
        if others.num_rows:
            raise IntegrityError(
                f"{others[FILE.name][0]}: its rows say another split than {split}, "
                "the folder it lies in"
            )
        parts.append(rows)
    rows = pa.concat_tables(parts)
    twice = duplicates(rows["sample_id"])
    if len(twice):
        sample_id = twice[0].as_py()
        first, second = rows_where(rows, sample_id=sample_id).to_pylist()[:2]
        raise IntegrityError(
            f"{second[FILE.name]}: sample_id {sample_id} is duplicated; "
            f"it is in {first['split']} as well"
        )


def _rows_of(
    store: Store, files: Sequence[str], columns: Sequence[str], schema: pa.Schema
) -> pa.Table:
    """Some columns of all files, and `file`, the path that a message names."""
    kept = pa.schema([schema.field(column) for column in columns])
    tables = [pa.schema([*kept, FILE]).empty_table()]
    for name in files:
        where = store.path(name)
        table = conform(store.read_table(name, list(columns)), kept, where)
        tables.append(table.append_column(FILE, pa.repeat(where, table.num_rows)))
    return pa.concat_tables(tables)


def _check_columns(store: Store, name: str, needed: Sequence[str], schema: pa.Schema) -> None:
    where = store.path(name)
    with store.reading(name, "write it again"), store.filesystem.open_input_file(where) as file:
        present = pq.ParquetFile(file).schema_arrow
    missing = [column for column in needed if column not in present.names]
    if missing:
        raise IntegrityError(
            f"{where}: no column {', '.join(missing)}; {', '.join(needed)} are needed"
        )
    image = present.field("image").type
    if not pa.types.is_struct(image):
        wanted = schema.field("image").type
        raise IntegrityError(f"{where}: column image is {image}; {wanted} is needed")


def _check_values(rows: pa.Table, classes: Sequence[str]) -> None:
    """Raises IntegrityError unless every value is one that training knows."""
    last = len(classes) - 1
    labels = f"0 to {last}, the labels of the real images"
    _check_all(rows, "gid", is_valid(rows["gid"]), "text in every row")
    _check_all(
        rows, "lam_pct", between(rows["lam_pct"], 0, REAL - 1), "whole percents from 0 to 99"
    )
    _check_all(rows, "role", is_in(rows["role"], ROLES), " or ".join(ROLES))
    _check_all(rows, "status", is_in(rows["status"], STATES), ", ".join(STATES))
    _check_all(rows, "label", between(rows["label"], 0, last), labels)
    made = equal(rows["status"], "ok")
    for column in ("text_sim", "text_rank"):
        unscored = both(made, is_null(rows[column]))
        if any_true(unscored):
            where = rows.filter(unscored)[FILE.name][0]
            raise IntegrityError(
                f"{where}: column {column} is null for an image that was made; "
                "the filter needs its score"
            )


def _check_all(rows: pa.Table, column: str, right: Mask, allowed: str) -> None:
    """Raises IntegrityError naming the first value that is not right; null is wrong."""
    wrong = rows.filter(negate(fill_null(right, False)))
    if wrong.num_rows:
        raise IntegrityError(
            f"{wrong[FILE.name][0]}: column {column} holds {wrong[column][0].as_py()!r}; "
            f"allowed: {allowed}"
        )


def _check_sources(rows: pa.Table, samples: Store) -> None:
    """Raises IntegrityError unless every row's source is a real image of the same label."""
    real = _labels(samples)
    places = places_in(rows["sample_id"], real["sample_id"])
    unknown = rows.filter(is_null(places))
    if unknown.num_rows:
        sample_id = unknown["sample_id"][0].as_py()
        raise IntegrityError(
            f"{unknown[FILE.name][0]}: sample_id {sample_id!r} is no real image of samples/train "
            "or samples/val"
        )
    labels = real["label"].take(places)
    differs = fill_null(not_equal(labels, rows["label"]), True)
    if any_true(differs):
        first = rows.filter(differs).slice(0, 1).to_pylist()[0]
        raise IntegrityError(
            f"{first[FILE.name]}: label {first['label']} of {first['sample_id']!r}, which is "
            f"{labels.filter(differs)[0]} among the real images"
        )


def _labels(samples: Store) -> pa.Table:
    """`sample_id` and `label` of the real images that may have a spectrum."""
    files = [*samples.list("train", ".parquet"), *samples.list("val", ".parquet")]
    return _rows_of(samples, files, ["sample_id", "label"], SAMPLES)
