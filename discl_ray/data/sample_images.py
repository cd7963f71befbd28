"""The images of some samples, read by whoever needs them, so that nobody holds those of all.

`locate` says once, in the driver, which file holds the bytes of each image; a worker then calls
`read_images` with a slice of those rows, and takes as much memory as the slice. A store is a value
that can be sent to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from discl_ray.core.arrays import Ints
from discl_ray.core.columns import as_numpy, equal, is_null, member, places_in
from discl_ray.core.schema import SAMPLES
from discl_ray.core.splits import SPLITS
from discl_ray.core.storage import Store, open_parquet
from discl_ray.data.listing import set_column
from discl_ray.errors import IntegrityError
from discl_ray.process.calls import AGAIN

PLACE = pa.schema([("part", pa.string()), ("row", pa.int32())])
"""Where the bytes of an image lie: a file in the samples' folder, and its row there; null for an
image that is a file of its own."""

LOCATED = pa.schema([*SAMPLES, *PLACE])
"""SAMPLES, and the place of each row's image."""


def locate(store: Store, rows: pa.Table) -> pa.Table:
    """LOCATED of some SAMPLES rows, in their order; reads ids and no image.

    `store` is the samples' folder. Raises IntegrityError if part of it is gone or damaged.
    """
    paths = member(rows["image"], "path")
    if paths.null_count == 0:
        nowhere = [pa.nulls(rows.num_rows, field.type) for field in PLACE]
        return _with_places(rows, nowhere)
    splits = rows["split"].unique().to_pylist()
    known = _places_by_id(store, splits)
    found = places_in(rows["sample_id"], known["sample_id"])
    if found.null_count:
        unknown = rows["sample_id"].filter(is_null(found))
        lacks = f"has no image of {found.null_count} of its samples, e.g. {unknown[0]}"
        raise IntegrityError(f"{store.location()}: {lacks}; {_remedy(store)}")
    columns = [known[name].take(found) for name in PLACE.names]
    return _with_places(rows, columns)


def _with_places(rows: pa.Table, places: list[pa.Array]) -> pa.Table:
    """LOCATED of rows and the columns of PLACE."""
    samples = rows.select(SAMPLES.names)
    return pa.table([*samples.columns, *places], names=LOCATED.names).cast(LOCATED)


def _places_by_id(store: Store, splits: Sequence[str]) -> pa.Table:
    """`sample_id` and PLACE of every sample of some splits."""
    schema = pa.schema([SAMPLES.field("sample_id"), *PLACE])
    parts = [schema.empty_table()]
    for split in SPLITS:
        if split not in splits:
            continue
        for name in store.list(split, ".parquet"):
            table = store.read_table(name, ["sample_id"], _remedy(store))
            count = table.num_rows
            table = table.append_column("part", pa.repeat(name, count))
            table = table.append_column("row", pa.array(np.arange(count), pa.int32()))
            parts.append(table.cast(schema))
    return pa.concat_tables(parts)


def read_images(store: Store, rows: pa.Table) -> pa.Table:
    """SAMPLES of LOCATED rows, in their order, with the bytes of the images that are not files.

    `store` is the samples' folder. Of its files, only the row groups that hold one of the rows are
    read, one after the other. Raises IntegrityError if a file is gone or damaged, or holds other
    samples than when it was located.
    """
    samples = rows.select(SAMPLES.names)
    if rows["part"].null_count == rows.num_rows:
        return samples
    images: list[pa.Array] = []
    positions: list[Ints] = []
    for name in rows["part"].unique().to_pylist():
        here = np.flatnonzero(as_numpy(equal(rows["part"], name)))
        part = rows.take(pa.array(here))
        numbers = part["row"].to_numpy()
        order = np.argsort(numbers, kind="stable")
        found = _read_rows(store, name, numbers[order])
        _check_same(store, name, found["sample_id"], part["sample_id"].take(pa.array(order)))
        images += found["image"].chunks
        positions.append(here[order])
    back = np.argsort(np.concatenate(positions))
    column = pa.chunked_array(images, SAMPLES.field("image").type)
    return set_column(samples, "image", column.take(pa.array(back))).cast(SAMPLES)


def _read_rows(store: Store, name: str, numbers: Ints) -> pa.Table:
    """Ids and images of some rows of a file, by ascending number."""
    path = store.path(name)
    with store.reading(name, _remedy(store)), store.filesystem.open_input_file(path) as file:
        parquet = open_parquet(file)
        ends = np.cumsum(_group_sizes(parquet))
        groups = np.searchsorted(ends, numbers, side="right")
        parts: list[pa.Table] = []
        for group in np.unique(groups).tolist():
            start = ends[group] - parquet.metadata.row_group(group).num_rows
            wanted = numbers[groups == group] - start
            table = parquet.read_row_group(group, ["sample_id", "image"], use_threads=False)
            parts.append(table.take(pa.array(wanted)))
        return pa.concat_tables(parts)


def _group_sizes(parquet: pq.ParquetFile) -> list[int]:
    """The number of rows of each row group."""
    groups = range(parquet.num_row_groups)
    return [parquet.metadata.row_group(group).num_rows for group in groups]


def _check_same(store: Store, name: str, found: pa.ChunkedArray, wanted: pa.ChunkedArray) -> None:
    """Raises IntegrityError unless a file holds the ids that were located in it."""
    if not found.equals(wanted):
        path = store.location(name)
        raise IntegrityError(f"{path}: holds other images than were listed; {_remedy(store)}")


def _remedy(store: Store) -> str:
    """What to do about a damaged file of the samples."""
    return f"delete {store.location()} and {AGAIN}, which reads the data again"
