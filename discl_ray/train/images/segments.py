"""A segment: some thousands of images in one immutable Arrow file named by its content, and reading rows out of many of them.

Decoded segments hold pixels at the classifier's size and are read by mapping them into memory. Encoded ones hold the images'
own bytes, for sets whose pixels fill no disk, and are decoded on access, to the same pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from PIL import Image, ImageOps

from discl_ray.core.sources import image_bytes, image_pixels
from discl_ray.core.storage import Store
from discl_ray.errors import DataError, ImageError, IntegrityError
from discl_ray.process.calls import advice

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
"""What a segment says of each image, besides the image."""

SEGMENT_BYTES = 2**27
"""Most pixels of a decoded segment, in bytes: what a process that writes one has in memory."""

SEGMENT_ROWS = 4096
"""Most images of a decoded segment; several segments can be written at once."""

ENCODED_ROWS = 512
"""Images of an encoded segment: photographs of half a megabyte come to a quarter of a gigabyte."""


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
        """Its place in the table's folder."""
        return f"segments/{self.sha256[:16]}.arrow"


class Images(Protocol):
    """Images by row number; a numpy array is one, too."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, side, side, 3)."""
        ...


def load_pixels(image: Mapping[str, Any], side: int) -> NDArray[np.uint8]:
    """An `image` value {bytes, path} at the classifier's size, shape (side, side, 3): the largest square in its middle, resized.

    Raises DataError if the file is gone or broken since it was read first.
    """
    pixels = _readable(image, lambda: image_pixels(image))
    if pixels.shape[:2] == (side, side):
        return pixels
    return np.asarray(ImageOps.fit(Image.fromarray(pixels), (side, side), Image.Resampling.BICUBIC))


def _load_bytes(image: Mapping[str, Any], side: int) -> bytes:
    """The encoded bytes, after a look whether they can be decoded: training is no time to find out."""
    data = _readable(image, lambda: image_bytes(image))
    load_pixels({"bytes": data, "path": image["path"]}, side)
    return data


def _readable(image: Mapping[str, Any], read: Any) -> Any:
    try:
        return read()
    except (OSError, ImageError) as error:
        raise DataError(
            f"{image['path'] or 'an image in a table'}: {error}; it was readable before: put it back, or, where it has moved, "
            f"{advice('generate')} and say where"
        ) from error


# -- writing


def rows_of_segment(side: int, mode: Mode) -> int:
    """How many images a segment gets."""
    return (
        ENCODED_ROWS
        if mode == "encoded"
        else max(1, min(SEGMENT_ROWS, SEGMENT_BYTES // (side * side * 3)))
    )


def write_segment(
    store: Store,
    rows: pa.Table,
    images: Iterable[tuple[int, Mapping[str, Any]]],
    side: int,
    mode: Mode,
) -> Segment:
    """Writes ROWS with their `images`, each with the place of its row, in any order. Equal images make an equal file.

    Raises DataError for an image that is gone or broken.
    """
    count = rows.num_rows
    if mode == "decoded":
        pixels = np.empty((count, side, side, 3), np.uint8)
        for place, image in images:
            pixels[place] = load_pixels(image, side)
        buffers: list[pa.Buffer | None] = [None, pa.py_buffer(pixels)]
        content: pa.Array = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(side * side * 3), count, buffers
        )
    else:
        encoded: list[bytes | None] = [None] * count
        for place, image in images:
            encoded[place] = _load_bytes(image, side)
        content = pa.array(encoded, pa.large_binary())
    # built anew: slices, and tables that went through Ray, hold the same rows in other buffers
    plain = rows.select(ROWS.names).to_pydict() | {
        "domain": [domain or "" for domain in rows["domain"].to_pylist()]
    }
    table = pa.Table.from_pydict(plain, schema=ROWS).append_column("content", content)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    segment = Segment(hashlib.sha256(data).hexdigest(), count, len(data))
    store.write(segment.name, data)
    return segment


# -- reading


def map_segment(path: Path) -> pa.RecordBatch:
    """ROWS and `content` of a segment, in the file's own memory.

    Raises IntegrityError if it is not a segment.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(
            f"{path}: cannot be read ({error}); delete the folder {path.parent.parent} and run the command again"
        ) from error


class DecodedSegments:
    """Pixels of segments, mapped into memory; `images[rows]` copies the rows asked for, in their order, repeated or not.

    Rows of many files come out in one numpy call, as fast as from one array: every image is an element of one vector over the
    addresses of all the files, whose stride divides every image's address. Only elements that are images are ever looked at.
    """

    def __init__(self, contents: Sequence[pa.Array], side: int) -> None:
        size = side * side * 3
        self._contents = list(contents)  # keeps the files mapped
        raws = [
            np.frombuffer(c.buffers()[1], np.uint8, len(c) * size, c.offset * size)
            for c in contents
        ]
        self._first = np.cumsum([0, *map(len, contents)])
        self.shape = (int(self._first[-1]), side, side, 3)
        self._ends = self._first[1:].view(np.uint64)
        at = np.array([raw.ctypes.data for raw in raws])
        lowest = raws[int(at.argmin())]
        step = int(np.gcd.reduce([size, *(at - at.min())]))
        length = (int(at.max() - at.min()) + size * max(map(len, contents))) // step
        # the vector's last elements may reach beyond the last file, where nobody asks for them
        element = lowest[:size].view(f"V{size}")
        self._elements = as_strided(element, (length,), (step,), writeable=False)
        self._per_row = size // step
        self._offset = (at - at.min()) // step - self._first[:-1] * self._per_row

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Pixels, shape (len(rows), side, side, 3), a copy; raises IndexError for a row that is not there."""
        rows = np.asarray(rows, np.int64)
        # as unsigned numbers, negative rows lie beyond the end, too, where there is no offset
        segment = self._ends.searchsorted(rows.view(np.uint64), "right")
        pixels = self._elements[self._offset[segment] + rows * self._per_row]
        return pixels.view(np.uint8).reshape(len(rows), *self.shape[1:])


class EncodedSegments:
    """Encoded images of segments; `images[rows]` decodes the rows asked for, by a few threads."""

    def __init__(self, contents: Sequence[pa.Array], side: int, threads: int | None = None) -> None:
        self._contents = list(contents)
        self._first = np.cumsum([0, *map(len, contents)])
        self.shape = (int(self._first[-1]), side, side, 3)
        self._threads = threads or min(8, os.cpu_count() or 1)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="decode")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Pixels, shape (len(rows), side, side, 3); raises IndexError for a row that is not there."""
        rows = np.asarray(rows, np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()}: the table has {len(self)}")
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def load(place: int, segment: int, row: int) -> None:
            image = {"bytes": self._contents[segment][row].as_py(), "path": None}
            pixels[place] = load_pixels(image, self.shape[1])

        segments = self._first.searchsorted(rows, "right") - 1
        places = range(len(rows))
        for _ in self._pool.map(
            load, places, segments.tolist(), (rows - self._first[segments]).tolist()
        ):
            pass
        return pixels


READERS = {"decoded": DecodedSegments, "encoded": EncodedSegments}
