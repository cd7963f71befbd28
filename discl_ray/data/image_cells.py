"""Columns of images in tables: how a column holds them, and the bytes of its cells.

An image is a cell of bytes, of {bytes, path} as Hugging Face stores it, or the path of a file under
the root. Columns of extension types are refused by their name alone: some hold pickled objects,
which are programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.types as pat

from discl_ray.core.storage import Store
from discl_ray.data.listing import read_files
from discl_ray.data.root import guard
from discl_ray.data.wording import shown
from discl_ray.errors import ImageError

BROKEN = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises at bytes that are not what they should be."""

Kind = Literal["bytes", "struct", "path"]

Cell = bytes | ImageError
"""An encoded image, or why there is none."""


def image_kind(dtype: pa.DataType) -> Kind | None:
    """How a column of this type holds images; None if it does not."""
    dtype = value_type(dtype)
    if pat.is_struct(dtype):
        return "struct" if _is_image_struct(dtype) else None
    if _is_bytes(dtype):
        return "bytes"
    if is_text(dtype):
        return "path"
    return None


def _is_image_struct(dtype: pa.StructType) -> bool:
    """Whether a struct has bytes, and a path if any of text."""
    fields = {field.name: field for field in dtype.fields}
    data = fields.get("bytes")
    path = fields.get("path")
    if data is None or not _is_bytes(data.type) or extension_of(data):
        return False
    # a path of nulls only is of type null, if the table was made of Python's own lists
    return path is None or pat.is_null(path.type) or is_text(path.type)


def value_type(dtype: pa.DataType) -> pa.DataType:
    """The type of a column's values, dictionary-encoded or not."""
    if pat.is_dictionary(dtype):
        return dtype.value_type
    return dtype


def _is_bytes(dtype: pa.DataType) -> bool:
    """Whether a column holds bytes, in any of Arrow's layouts."""
    return pat.is_binary(dtype) or pat.is_large_binary(dtype) or pat.is_binary_view(dtype)


def is_text(dtype: pa.DataType) -> bool:
    """Whether a column holds text, in any of Arrow's layouts."""
    return pat.is_string(dtype) or pat.is_large_string(dtype) or pat.is_string_view(dtype)


def extension_of(field: pa.Field) -> str | None:
    """The name of a field's extension type, whether this process has registered it or not."""
    if isinstance(field.type, pa.BaseExtensionType):
        return field.type.extension_name
    metadata = field.metadata or {}
    name = metadata.get(b"ARROW:extension:name")
    if name is None:
        return None
    return name.decode("utf-8", "replace")


def runs(rows: pa.Table) -> Iterator[tuple[str, list[int]]]:
    """Files and ascending row numbers, in the order of a listing's rows."""
    path: str | None = None
    wanted: list[int] = []
    paths = rows["path"].to_pylist()
    numbers = rows["row"].to_pylist()
    for here, number in zip(paths, numbers, strict=True):
        if path is not None and (here != path or number <= wanted[-1]):
            yield path, wanted
            wanted = []
        path = here
        wanted.append(number)
    if path is not None:
        yield path, wanted


def cells(
    root: Store,
    batches: Iterator[pa.RecordBatch],
    start: int,
    wanted: Sequence[int],
    *,
    links: bool,
) -> Iterator[Cell]:
    """The images of some rows, in ascending order; one for each, whatever is broken.

    The record batches have the image column alone and begin at row `start` of their file.
    """
    done = 0
    try:
        while done < len(wanted):
            batch = next(batches)
            _check_column(batch)
            column = batch.column(0)
            end = start + batch.num_rows
            while done < len(wanted) and wanted[done] < end:
                value = column[wanted[done] - start].as_py()
                # counted before the yield: an error of the consumer is not one of this cell
                done += 1
                yield _image(root, value, links)
            start = end
        return
    except StopIteration:
        error = ImageError("missing", "the file has fewer rows than when it was listed")
    except BROKEN as broken:
        error = ImageError("unreadable", str(broken))
    yield from [error] * (len(wanted) - done)


def _check_column(batch: pa.RecordBatch) -> None:
    """Raises ValueError if the column no longer holds images: the file may have changed."""
    field = batch.schema.field(0)
    if extension_of(field) or image_kind(field.type) is None:
        raise ValueError("the column is no longer what it was when it was listed")


def _image(root: Store, value: Any, links: bool) -> Cell:
    """The image of a cell."""
    if isinstance(value, Mapping):
        path = value.get("path")
        value = value["bytes"]
        if value is None and path:
            return _linked(root, path, links)
    if value is None:
        return ImageError("missing", "the cell is empty")
    return value


def _linked(root: Store, path: str, links: bool) -> Cell:
    """A file that a cell names instead of holding it."""
    try:
        plain = guard(root, path, links=links)
    except ValueError as error:
        return ImageError("refused", f"path '{shown(path)}' {error}")
    one = pa.table({"path": pa.array([plain])})
    return next(read_files(root, one))
