"""Writing the segments of an image table, over the cluster: one call makes one segment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from discl_ray.cluster.map_blocks import map_blocks
from discl_ray.core.sources import NEITHER
from discl_ray.core.storage import ROW_GROUP, Store, open_parquet
from discl_ray.errors import DataError, IntegrityError
from discl_ray.spectrum.remedies import find_damage
from discl_ray.spectrum.samples import SAMPLES_AGAIN
from discl_ray.train.images.segments import (
    ROWS,
    Mode,
    PlacedImages,
    Segment,
    rows_of_segment,
    write_segment,
)

_PLACE = [("file", pa.string()), ("made", pa.bool_()), ("key", pa.string())]

WANTED = pa.schema([*ROWS, *_PLACE])
"""A row to write, and its image's place: the file of the samples or (made) of the spectrum, and the
key in it."""

_WRITTEN = pa.schema(
    [
        ("number", pa.int64()),
        ("sha256", pa.string()),
        ("rows", pa.int64()),
        ("size", pa.int64()),
        ("error", pa.string()),
    ]
)


def cut(rows: pa.Table, length: int) -> list[pa.Table]:
    """Parts of `length` rows in order, the last one shorter."""
    begins = range(0, rows.num_rows, length)
    parts = [rows.slice(begin, length) for begin in begins]
    return [part.combine_chunks() for part in parts]


def values_of(rows: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """Values of some columns, row by row."""
    columns = [rows[name].to_pylist() for name in names]
    return zip(*columns, strict=True)


def write_segments(
    rows: pa.Table, writer: SegmentWriter, num_cpus: int | None
) -> tuple[Segment, ...]:
    """All segments of WANTED rows, in their order.

    Raises DataError for an image that is gone or broken.
    """
    length = rows_of_segment(writer.side, writer.mode)
    blocks: list[pa.Table] = []
    for number, block in enumerate(cut(rows, length)):
        numbers = pa.repeat(number, block.num_rows)
        blocks.append(block.append_column("number", numbers))
    segments: dict[int, Segment] = {}
    for done in map_blocks(blocks, writer, "images into the table", num_cpus, weigh="rows"):
        for row in done.to_pylist():
            if row["error"] is not None:
                raise DataError(row["error"])
            number = row["number"]
            segments[number] = Segment(row["sha256"], row["rows"], row["size"])
    numbers = range(len(blocks))
    return tuple(segments[number] for number in numbers)


@dataclass(frozen=True)
class SegmentWriter:
    """Makes rows of one `number` (WANTED) a segment, and returns a row of _WRITTEN.

    A problem with an image is returned in that row, too.
    """

    samples: Store
    """Real images."""
    generated: Store
    """The spectrum's."""
    target: Store
    """The table's folder."""
    side: int
    mode: Mode

    def __call__(self, rows: pa.Table) -> pa.Table:
        """See the class."""
        number = rows["number"][0].as_py()
        row: dict[str, Any] = {"number": number, "rows": rows.num_rows}
        try:
            images = self._images(rows)
            segment = write_segment(self.target, rows, images, self.side, self.mode)
            row |= asdict(segment)
        except DataError as error:
            row["error"] = str(error)
        return pa.Table.from_pylist([row], schema=_WRITTEN)

    def _images(self, rows: pa.Table) -> PlacedImages:
        """Images and their places, file by file, few in memory at a time."""
        files: dict[tuple[str, bool], dict[str, int]] = {}
        images = values_of(rows, "file", "made", "key")
        for place, (file, made, key) in enumerate(images):
            places = files.setdefault((file, made), {})
            places[key] = place
        for (file, made), places in files.items():
            if made:
                remedy = find_damage(self.generated)
                yield from _read(self.generated, file, "gid", places, remedy)
            else:
                yield from _read(self.samples, file, "sample_id", places, SAMPLES_AGAIN)


def _read(store: Store, file: str, key: str, places: dict[str, int], remedy: str) -> PlacedImages:
    """Images of the rows of a Parquet file that `places` names by their key, and their places.

    Raises IntegrityError with the remedy if one is gone, DataError if one is empty.
    """
    left = dict(places)
    path = store.path(file)
    columns = [key, "image"]
    with store.reading(file, remedy), store.filesystem.open_input_file(path) as source:
        parquet = open_parquet(source)
        for batch in parquet.iter_batches(ROW_GROUP, columns=columns, use_threads=False):
            keys = batch.column(key).to_pylist()
            images = batch.column("image")
            for i, name in enumerate(keys):
                place = left.pop(name, None)
                if place is not None:
                    image = images[i].as_py()
                    if image["bytes"] is None and image["path"] is None:
                        # Checked only here, where the bytes are read.
                        where = f"{store.location(file)}: the image of {key} {name}"
                        raise DataError(f"{where}: {NEITHER}; one of them is needed")
                    yield place, image
    if left:
        gone = len(left)
        count = "1 image is" if gone == 1 else f"{gone} images are"
        raise IntegrityError(f"{path}: {count} gone; {remedy}")
