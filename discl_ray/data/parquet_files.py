"""Parquet files with a row an image: opened by their footer, read by row group in small batches.

So a file may be larger than memory.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from discl_ray.core.storage import Store
from discl_ray.data.files import split_of
from discl_ray.data.image_cells import BROKEN, Cell, cells, runs
from discl_ray.data.tabular import Source, unreadable
from discl_ray.errors import ImageError

BATCH = 16
"""Images decoded from a file at once."""

BUFFER = 2**20
"""Bytes read ahead; unbuffered, a row group's whole column would be read for its first image."""


def is_parquet(path: str) -> bool:
    """Whether a file is Parquet by its name."""
    return path.lower().endswith(".parquet")


def open_parquet(root: Store, path: str) -> Source:
    """A Parquet file by its footer; raises DataError if that is broken."""
    try:
        with _file(root, path) as file:
            schema = file.schema_arrow
    except BROKEN as error:
        raise unreadable(path, "a Parquet file", error) from error
    read = partial(_read_columns, root, path)
    return Source(path=path, schema=schema, split=split_of_path(path), read=read)


def _file(root: Store, path: str) -> pq.ParquetFile:
    """An open Parquet file."""
    return pq.ParquetFile(
        root.path(path), filesystem=root.filesystem, buffer_size=BUFFER, pre_buffer=False
    )


def _read_columns(root: Store, path: str, columns: list[str]) -> pa.Table:
    """Some columns of a Parquet file."""
    with _file(root, path) as file:
        return file.read(columns)


def split_of_path(path: str) -> str | None:
    """The split a file's name begins with, else that of the innermost folder named like one."""
    *folders, name = path.split("/")
    first = re.match(r"[A-Za-z]+", name)
    words = [first[0] if first else "", *reversed(folders)]
    splits = (split_of(word) for word in words)
    return next((split for split in splits if split is not None), None)


def read_parquet(root: Store, rows: pa.Table, *, column: str, links: bool) -> Iterator[Cell]:
    """The images of LISTING rows: of the row groups they lie in, only the image column is read."""
    for path, wanted in runs(rows):
        done = 0
        try:
            with _file(root, path) as file:
                for image in _read_rows(root, file, wanted, column, links):
                    yield image
                    done += 1
            error = ImageError("missing", f"{path} has no such row")
        except BROKEN as broken:
            error = ImageError("unreadable", f"{path}: {broken}")
        yield from [error] * (len(wanted) - done)


def _read_rows(
    root: Store, file: pq.ParquetFile, wanted: Sequence[int], column: str, links: bool
) -> Iterator[Cell]:
    """The images of ascending row numbers, as far as the file has them."""
    start = 0
    for number in range(file.num_row_groups):
        end = start + file.metadata.row_group(number).num_rows
        here = wanted[bisect_left(wanted, start) : bisect_left(wanted, end)]
        if here:
            batches = file.iter_batches(BATCH, row_groups=[number], columns=[column])
            yield from cells(root, batches, start, here, links=links)
        start = end
