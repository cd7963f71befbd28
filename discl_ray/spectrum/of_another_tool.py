"""What a spectrum that another tool wrote must hold, checked before anything is trained on it.

Our own tables are right by construction. Of another tool's, every column and value that training
relies on is checked once, as Arrow columns and without reading an image.
"""

from __future__ import annotations

from collections import Counter
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

BYTES = (pa.binary(), pa.large_binary(), pa.null())
"""Types of an image's `bytes`; null in a file whose images are all given by path."""

GIVEN = pa.field("image", pa.bool_())
"""Whether a row has an image, in the place of the image itself."""

PATHS = "image.path"
"""What is read to learn that: not the bytes."""

ROLES = ("train", "probe")

STATES = ("ok", "error", "crashed")


def conform(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """A table with the types of a schema, whose columns it has; null columns may be of any type.

    Raises IntegrityError naming the column whose values are of another kind.
    """
    columns: list[pa.ChunkedArray] = []
    for field in schema:
        column = table[field.name]
        if pa.types.is_dictionary(column.type):  # pandas writes categories like this
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
    rows = _rows_of(store, files, NEEDED, SPECTRUM)
    if not rows.num_rows:
        raise IntegrityError(f"{store.location()}: its files hold no row")
    _check_values(rows, classes)
    _check_sources(rows, samples)
    twice = duplicates(rows["gid"])
    if len(twice):
        equal_rows = rows_where(rows, gid=twice[0].as_py())
        second = equal_rows[FILE.name][1]
        raise IntegrityError(
            f"{second}: a gid is duplicated, here or in a file before; "
            "every image needs one of its own"
        )


def check_samples(samples: Store) -> None:
    """Raises IntegrityError unless the tables of the real images have their columns.

    The rows of a folder must be of its split and complete, and no image may be in two.
    """
    parts: list[pa.Table] = []
    for split in SPLITS:
        broken = wrong_links(samples, split)
        if broken:
            raise IntegrityError(min(broken.values()))
        files = samples.list(split, ".parquet")
        for name in files:
            _check_columns(samples, name, NEEDED_OF_SAMPLES, SAMPLES)
        rows = _rows_of(samples, files, NEEDED_OF_SAMPLES, SAMPLES)
        for column in ("sample_id", "label", "class_name"):
            _check_given(rows, column, is_null(rows[column]), "it is needed in every row")
        _check_given(rows, "image", negate(rows["image"]), "{bytes, path} is needed in every row")
        differs = not_equal(rows["split"], split)
        others = rows.filter(fill_null(differs, True))
        if others.num_rows:
            where = others[FILE.name][0]
            raise IntegrityError(
                f"{where}: its rows say another split than {split}, the folder it lies in"
            )
        parts.append(rows)
    rows = pa.concat_tables(parts)
    twice = duplicates(rows["sample_id"])
    if len(twice):
        sample_id = twice[0].as_py()
        equal_rows = rows_where(rows, sample_id=sample_id).to_pylist()
        first, second = equal_rows[:2]
        where = second[FILE.name]
        raise IntegrityError(
            f"{where}: sample_id {sample_id} is duplicated; it is in {first['split']} as well"
        )


def wrong_links(store: Store, folder: str) -> dict[str, str]:
    """File -> what is wrong, of the tables in a folder that are links to no file."""
    found: dict[str, str] = {}
    for name in store.broken_links(folder, ".parquet"):
        where = store.location(name)
        wrong = "a link to a file that cannot be found"
        todo = "put the file back, or delete the link"
        found[name] = f"{where}: {wrong}; {todo}"
    return found


def _rows_of(
    store: Store, files: Sequence[str], columns: Sequence[str], schema: pa.Schema
) -> pa.Table:
    """Some columns of all files, `file`, the path that a message names, and GIVEN."""
    plain = [column for column in columns if column != "image"]
    kept = pa.schema([schema.field(column) for column in plain])
    with_paths = [*plain, PATHS]
    tables = [pa.schema([*kept, FILE, GIVEN]).empty_table()]
    for name in files:
        where = store.location(name)
        table = store.read_table(name, with_paths)
        rows = conform(table, kept, where)
        of_file = pa.repeat(where, table.num_rows)
        rows = rows.append_column(FILE, of_file)
        given = is_valid(table["image"])
        rows = rows.append_column(GIVEN, given)
        tables.append(rows)
    return pa.concat_tables(tables)


def _check_columns(store: Store, name: str, needed: Sequence[str], schema: pa.Schema) -> None:
    """Raises IntegrityError unless a file has the needed columns; only its footer is read."""
    where = store.location(name)
    path = store.path(name)
    with store.reading(name, "write it again"), store.filesystem.open_input_file(path) as file:
        present = pq.ParquetFile(file).schema_arrow
    missing = [column for column in needed if column not in present.names]
    if missing:
        absent = ", ".join(missing)
        every = ", ".join(needed)
        raise IntegrityError(f"{where}: no column {absent}; {every} are needed")
    names: list[str] = present.names
    for column, count in Counter(names).items():
        if count > 1 and column in schema.names:
            raise IntegrityError(f"{where}: {count} columns are named {column}; one is needed")
    image = present.field("image").type
    if not _holds_images(image):
        wanted = schema.field("image").type
        raise IntegrityError(f"{where}: column image is {image}; {wanted} is needed")


def _holds_images(kind: pa.DataType) -> bool:
    """Whether values of a type are {bytes, path}."""
    if not pa.types.is_struct(kind):
        return False
    fields = {field.name: field.type for field in kind}
    if "path" not in fields:
        return False
    return fields.get("bytes") in BYTES


def _check_values(rows: pa.Table, classes: Sequence[str]) -> None:
    """Raises IntegrityError unless every value is one that training knows."""
    highest = REAL - 1
    last = len(classes) - 1
    levels = between(rows["lam_pct"], 0, highest)
    labels = between(rows["label"], 0, last)
    _check_all(rows, "gid", is_valid(rows["gid"]), "text in every row")
    _check_all(rows, "lam_pct", levels, f"whole percents from 0 to {highest}")
    _check_all(rows, "role", is_in(rows["role"], ROLES), " or ".join(ROLES))
    _check_all(rows, "status", is_in(rows["status"], STATES), ", ".join(STATES))
    _check_all(rows, "label", labels, f"0 to {last}, the labels of the real images")
    made = equal(rows["status"], "ok")
    for column in ("text_sim", "text_rank"):
        unscored = both(made, is_null(rows[column]))
        _check_given(rows, column, unscored, "the filter needs it where status is ok")
    without = both(made, negate(rows["image"]))
    _check_given(rows, "image", without, "{bytes, path} is needed where status is ok")


def _check_given(rows: pa.Table, column: str, missing: Mask, needed: str) -> None:
    """Raises IntegrityError naming the first file in which a column is null, and in how many rows.

    `missing` are the rows where it must not be.
    """
    wrong = rows.filter(missing)
    if not wrong.num_rows:
        return
    where = wrong[FILE.name][0].as_py()
    count = rows_where(wrong, file=where).num_rows
    held = "1 row" if count == 1 else f"{count} rows"
    raise IntegrityError(f"{where}: column {column} is null in {held}; {needed}")


def _check_all(rows: pa.Table, column: str, right: Mask, allowed: str) -> None:
    """Raises IntegrityError naming the first value that is not right; null is wrong."""
    is_right = fill_null(right, False)
    wrong = rows.filter(negate(is_right))
    if not wrong.num_rows:
        return
    where = wrong[FILE.name][0]
    value = wrong[column][0].as_py()
    raise IntegrityError(f"{where}: column {column} holds {value!r}; allowed: {allowed}")


def _check_sources(rows: pa.Table, samples: Store) -> None:
    """Raises IntegrityError unless every row's source is a real image of the same label."""
    real = _labels(samples)
    places = places_in(rows["sample_id"], real["sample_id"])
    unknown = rows.filter(is_null(places))
    if unknown.num_rows:
        where = unknown[FILE.name][0]
        sample_id = unknown["sample_id"][0].as_py()
        raise IntegrityError(
            f"{where}: sample_id {sample_id!r} is no real image of samples/train or samples/val"
        )
    labels = real["label"].take(places)
    differs = fill_null(not_equal(labels, rows["label"]), True)
    if not any_true(differs):
        return
    first = rows.filter(differs).slice(0, 1).to_pylist()[0]
    label_of_source = labels.filter(differs)[0]
    raise IntegrityError(
        f"{first[FILE.name]}: label {first['label']} of {first['sample_id']!r}, "
        f"which is {label_of_source} among the real images"
    )


def _labels(samples: Store) -> pa.Table:
    """`sample_id` and `label` of the real images that may have a spectrum."""
    # Not test: what a result is measured on makes no image to train on.
    train = samples.list("train", ".parquet")
    val = samples.list("val", ".parquet")
    files = [*train, *val]
    return _rows_of(samples, files, ["sample_id", "label"], SAMPLES)
