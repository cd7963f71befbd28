"""A segment: some thousands of images in one immutable Arrow file named by its content.

Decoded segments hold pixels at the classifier's size and are memory-mapped. Encoded ones hold the
images' own bytes, for sets whose pixels fit on no disk, and are decoded on access, to the same
pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import as_strided
from PIL import Image, ImageOps

from discl_ray.core.arrays import Ints, Pixels
from discl_ray.core.sources import image_bytes, image_pixels
from discl_ray.core.storage import Store
from discl_ray.errors import DataError, ImageError, IntegrityError
from discl_ray.process.calls import advice

Value = TypeVar("Value")

ImageValue = Mapping[str, Any]
"""An image as tables hold it: {bytes, path}."""

PlacedImages = Iterable[tuple[int, ImageValue]]
"""Images, each with the place of its row, in any order."""
Mode = Literal["decoded", "encoded"]

ROWS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("label", pa.int32()),
        ("lam_pct", pa.int32()),
        ("role", pa.string()),
        ("hard", pa.bool_()),
        ("domain", pa.string()),
    ]
)
"""Columns of a segment besides the image."""

SEGMENT_BYTES = 2**27
"""Largest decoded segment: what a process that writes one holds in memory."""

SEGMENT_ROWS = 4096
"""Most images of a decoded segment, so that even small sets are written by several processes."""

ENCODED_ROWS = 512
"""Images of an encoded segment: photographs of half a megabyte fill a quarter of a gigabyte."""


@dataclass(frozen=True)
class Segment:
    """A segment's file."""

    sha256: str
    """Of its bytes."""
    rows: int
    size: int
    """Bytes."""

    @property
    def name(self) -> str:
        """Its path in the table's folder."""
        return f"segments/{self.sha256[:16]}.arrow"


class Images(Protocol):
    """Images by row number, as a numpy array gives them."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Pixels: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, side, side, 3)."""
        ...


def load_pixels(image: ImageValue, side: int) -> Pixels:
    """An image at the classifier's size, shape (side, side, 3).

    The largest square in its middle, resized. Raises DataError if the file is gone or broken since
    it was read first.
    """
    pixels = _readable(image, image_pixels)
    if pixels.shape[:2] == (side, side):
        return pixels
    whole = Image.fromarray(pixels)
    size = (side, side)
    fitted = ImageOps.fit(whole, size, Image.Resampling.BICUBIC)
    return np.asarray(fitted)


def _load_bytes(image: ImageValue, side: int) -> bytes:
    """The encoded bytes, which are decoded once here: a broken image should not end training."""
    data = _readable(image, image_bytes)
    load_pixels({"bytes": data, "path": image["path"]}, side)
    return data


def _readable(image: ImageValue, read: Callable[[ImageValue], Value]) -> Value:
    """What `read` returns; raises DataError if it cannot read the image."""
    try:
        return read(image)
    except (OSError, ImageError) as error:
        name = image["path"] or "an image in a table"
        raise DataError(
            f"{name}: {error}; it was readable before: put it back, or, where it has moved, "
            f"{advice('generate')} and say where"
        ) from error


# -- writing


def rows_of_segment(side: int, mode: Mode) -> int:
    """Images of a segment."""
    if mode == "encoded":
        return ENCODED_ROWS
    image = side * side * 3
    fitting = SEGMENT_BYTES // image
    return max(1, min(SEGMENT_ROWS, fitting))


def write_segment(
    store: Store, rows: pa.Table, images: PlacedImages, side: int, mode: Mode
) -> Segment:
    """Writes ROWS with their `images`.

    Equal images give an equal file. Raises DataError for an image that is gone or broken.
    """
    count = rows.num_rows
    encode = _decoded_content if mode == "decoded" else _encoded_content
    content = encode(count, images, side)
    # built from Python values: slices, and tables that went through Ray, hold the same rows in
    # other buffers, which would give another file
    plain = rows.select(ROWS.names).to_pydict()
    plain["domain"] = [domain or "" for domain in plain["domain"]]
    table = pa.Table.from_pydict(plain, schema=ROWS)
    data = _arrow_file(table.append_column("content", content))
    digest = hashlib.sha256(data).hexdigest()
    segment = Segment(digest, count, len(data))
    store.write(segment.name, data)
    return segment


def _arrow_file(table: pa.Table) -> bytes:
    """The bytes of an Arrow file of one batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _decoded_content(count: int, images: PlacedImages, side: int) -> pa.Array:
    """Pixels of all images, as binary values of one length."""
    pixels = np.empty((count, side, side, 3), np.uint8)
    for place, image in images:
        pixels[place] = load_pixels(image, side)
    kind = pa.binary(side * side * 3)
    buffers: list[pa.Buffer | None] = [None, pa.py_buffer(pixels)]
    return pa.FixedSizeBinaryArray.from_buffers(kind, count, buffers)


def _encoded_content(count: int, images: PlacedImages, side: int) -> pa.Array:
    """The images' own bytes."""
    encoded: list[bytes | None] = [None] * count
    for place, image in images:
        encoded[place] = _load_bytes(image, side)
    return pa.array(encoded, pa.large_binary())


# -- reading


def map_segment(path: Path) -> pa.RecordBatch:
    """ROWS and `content` of a segment, in the file's own memory.

    Raises IntegrityError if it is not a segment.
    """
    try:
        mapped = pa.memory_map(str(path))
        return pa.ipc.open_file(mapped).get_batch(0)
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(
            f"{path}: cannot be read ({error}); "
            f"delete the folder {path.parent.parent} and run the command again"
        ) from error


class DecodedSegments:
    """Pixels of memory-mapped segments.

    `images[rows]` copies the rows asked for, in their order, repeated or not. Rows of many files
    are copied in one numpy call, as fast as from one array: every image is an element of one vector
    over the addresses of all files, whose stride divides every image's address. Only elements that
    are images are ever read.
    """

    def __init__(self, contents: Sequence[pa.Array], side: int) -> None:
        size = side * side * 3
        self._contents = list(contents)  # keeps the files mapped
        raws = [_bytes_of(content, size) for content in self._contents]
        lengths = [len(content) for content in contents]
        self._first = np.cumsum([0, *lengths])
        count = int(self._first[-1])
        self.shape = (count, side, side, 3)
        self._ends = self._first[1:].view(np.uint64)
        addresses = np.array([raw.ctypes.data for raw in raws])
        lowest = raws[int(addresses.argmin())]
        distances = addresses - addresses.min()
        step = int(np.gcd.reduce([size, *distances]))
        # the vector's last elements may reach beyond the last file, where no row is
        farthest = int(distances.max())
        reach = farthest + size * max(lengths)
        length = reach // step
        element = lowest[:size].view(f"V{size}")
        self._elements = as_strided(element, (length,), (step,), writeable=False)
        self._per_row = size // step
        rows_before = self._first[:-1]
        self._offset = distances // step - rows_before * self._per_row

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Pixels:
        """Pixels, shape (len(rows), side, side, 3), a copy; raises IndexError for a missing row."""
        rows = np.asarray(rows, np.int64)
        # as unsigned numbers, negative rows are beyond the end, too, where there is no offset
        unsigned = rows.view(np.uint64)
        segment = self._ends.searchsorted(unsigned, "right")
        places = self._offset[segment] + rows * self._per_row
        pixels = self._elements[places].view(np.uint8)
        shape = (len(rows), *self.shape[1:])
        return pixels.reshape(shape)


def _bytes_of(content: pa.Array, size: int) -> Pixels:
    """The pixels of a segment in the file's own memory."""
    _, pixels = content.buffers()
    first = content.offset * size
    count = len(content) * size
    return np.frombuffer(pixels, np.uint8, count, first)


class EncodedSegments:
    """Encoded images of segments; `images[rows]` decodes the rows asked for with a few threads."""

    def __init__(self, contents: Sequence[pa.Array], side: int, threads: int | None = None) -> None:
        self._contents = list(contents)
        lengths = [len(content) for content in contents]
        self._first = np.cumsum([0, *lengths])
        count = int(self._first[-1])
        self.shape = (count, side, side, 3)
        available = os.cpu_count() or 1
        self._threads = threads or min(8, available)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        """Threads that decode; started with the first rows."""
        return ThreadPoolExecutor(self._threads, thread_name_prefix="decode")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Pixels:
        """Pixels, shape (len(rows), side, side, 3); raises IndexError for a missing row."""
        rows = np.asarray(rows, np.int64)
        self._check(rows)
        shape = (len(rows), *self.shape[1:])
        pixels = np.empty(shape, np.uint8)

        def load(place: int, segment: int, row: int) -> None:
            """Decodes one image into its place."""
            encoded = self._contents[segment][row].as_py()
            image = {"bytes": encoded, "path": None}
            side = self.shape[1]
            pixels[place] = load_pixels(image, side)

        segments = self._first.searchsorted(rows, "right") - 1
        within = rows - self._first[segments]
        places = range(len(rows))
        loaded = self._pool.map(load, places, segments.tolist(), within.tolist())
        for _ in loaded:  # raises what a thread raised
            pass
        return pixels

    def _check(self, rows: Ints) -> None:
        """Raises IndexError for a missing row."""
        if not len(rows):
            return
        first = rows.min()
        last = rows.max()
        if first < 0 or last >= len(self):
            raise IndexError(f"rows {first} to {last}: the table has {len(self)}")


READERS = {"decoded": DecodedSegments, "encoded": EncodedSegments}
