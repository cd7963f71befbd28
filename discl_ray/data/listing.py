"""What a reader returns: a row for each image, and how to read its bytes.

A listing is metadata only, so a million rows fit in memory, and no image is opened before all rows
are listed; `scan` reads, hashes and decodes the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from discl_ray.core.ids import stable_id
from discl_ray.core.storage import Store
from discl_ray.errors import ImageError

LISTING = pa.schema(
    [
        # unique; for images in files their path under the root, so that people find them
        ("sample_id", pa.string()),
        # the file under the root, with `/`
        ("path", pa.string()),
        # the image's number in a file that holds several, else null
        ("row", pa.int64()),
        # the class as the data set spells it: `n01440764`
        ("class_key", pa.string()),
        # train | val | test; null: to be drawn
        ("split", pa.string()),
        ("domain", pa.string()),
        ("group", pa.string()),
    ]
)

REJECTS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("split", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""Images that cannot be used, and why."""

Read = Callable[[Store, pa.Table], Iterator[bytes | ImageError]]
"""(root, LISTING rows) -> the encoded bytes of each, in order, or why there are none.

A module's own function, not a closure, because Ray sends it to its workers.
"""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All images of a data set."""

    table: pa.Table
    """LISTING rows, and for `read_inline` the column `bytes`."""
    root: Store
    read: Read
    stamp: str
    """Changes with the files of the images: a hash of names, sizes and dates, or of contents."""
    in_files: bool = True
    """Each image is a file of its own: SAMPLES keeps its path, not its bytes."""
    classes: Sequence[str] | None = None
    """Class keys in the order of their labels; default: sorted."""
    names: dict[str, str] = field(default_factory=dict)
    """Class key -> name for prompts and tables, where the data set has better ones than keys."""
    refused: pa.Table = field(default_factory=REJECTS.empty_table)
    """REJECTS: what exists and must not be read."""
    notes: tuple[str, ...] = ()
    """What the user should know of what was left out, a sentence each."""

    @property
    def keys(self) -> list[str]:
        """The class keys by label."""
        if self.classes:
            return list(self.classes)
        return sorted(self.table["class_key"].unique().to_pylist())


def listing_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """LISTING of rows that may leave out what is null."""
    return pa.Table.from_pylist(list(rows), schema=LISTING)


def set_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """A table with another array in the place of one of its columns."""
    at = table.column_names.index(name)
    return table.set_column(at, name, values)


def refused_files(paths: Sequence[str], splits: Sequence[str | None], detail: str) -> pa.Table:
    """REJECTS of files that must not be read."""
    columns = {
        "sample_id": list(paths),
        "split": list(splits),
        "reason": ["refused"] * len(paths),
        "detail": [f"refused: {detail}"] * len(paths),
    }
    return pa.table(columns, schema=REJECTS)


def read_files(root: Store, rows: pa.Table) -> Iterator[bytes | ImageError]:
    """Images that are files of their own."""
    for path in rows["path"].to_pylist():
        try:
            yield root.read(path)
        except FileNotFoundError:
            yield ImageError("missing", _why_missing(path))
        except OSError as error:
            yield ImageError("unreadable", str(error))


def _why_missing(path: str) -> str:
    """A listed name that is not UTF-8 holds escapes, under which there is no file."""
    if "\\x" in path:
        return "its name is not UTF-8; rename it"
    return "no such file"


def read_inline(_root: Store, rows: pa.Table) -> Iterator[bytes | ImageError]:
    """Images whose bytes are in the listing."""
    yield from rows["bytes"].to_pylist()


def inline(
    rows: Sequence[dict[str, Any]], root: Store, classes: Sequence[str] | None = None
) -> Listing:
    """A listing of images made in memory; rows have `bytes` besides the columns of LISTING."""
    ids = [row["sample_id"] for row in rows]
    images = [row["bytes"] for row in rows]
    hashes = [stable_id(image.hex()) for image in images]
    # Table.from_pylist ignores keys that the schema does not name, such as `bytes`
    table = listing_table(rows).append_column("bytes", pa.array(images, pa.binary()))
    return Listing(
        table=table,
        root=root,
        read=read_inline,
        stamp=stable_id(ids, hashes),
        in_files=False,
        classes=classes,
    )
