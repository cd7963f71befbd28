"""What a reader gives: a row for each image and how its bytes are had. No image is opened before all rows are listed.

A listing is metadata only, so a million rows fit in memory; what reads, hashes and decodes the images is `scan`.
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
        (
            "sample_id",
            pa.string(),
        ),  # unique; for images in files their path under the root, so that people find them
        ("path", pa.string()),  # the file under the root, with `/`
        ("row", pa.int64()),  # the image's number in a file that holds several, else null
        ("class_key", pa.string()),  # the class as the data set spells it: `n01440764`
        ("split", pa.string()),  # train | val | test; null: to be drawn
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
"""(root, LISTING rows) -> the encoded bytes of each, in order, or why there are none; a function of a module, so that it travels."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All images of a data set."""

    table: pa.Table
    """LISTING rows, and for `read_inline` the column `bytes`."""
    root: Store
    read: Read
    stamp: str
    """Changes whenever a file the images lie in does: a hash of names, sizes and dates, or of contents."""
    in_files: bool = True
    """Each image is a file of its own: SAMPLES keeps its path, not its bytes."""
    classes: Sequence[str] | None = None
    """Class keys in the order of their labels; default: sorted."""
    names: dict[str, str] = field(default_factory=dict)
    """Class key -> name for prompts and tables, where the data set knows better than its keys."""
    refused: pa.Table = field(default_factory=REJECTS.empty_table)
    """REJECTS: what is there and may not be read."""
    notes: tuple[str, ...] = ()
    """What the user should know of what was left out, a sentence each."""


def listing_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """LISTING of rows that may leave out what is null."""
    return pa.Table.from_pylist(list(rows), schema=LISTING)


def refused_files(paths: Sequence[str], splits: Sequence[str | None], detail: str) -> pa.Table:
    """REJECTS of files that may not be read."""
    reasons = {"reason": ["refused"] * len(paths), "detail": [f"refused: {detail}"] * len(paths)}
    return pa.table({"sample_id": list(paths), "split": list(splits), **reasons}, schema=REJECTS)


def read_files(root: Store, rows: pa.Table) -> Iterator[bytes | ImageError]:
    """Images that are files of their own."""
    for path in rows["path"].to_pylist():
        try:
            yield root.read(path)
        except FileNotFoundError:
            yield ImageError(
                "missing", "its name is not UTF-8; rename it" if "\\x" in path else "no such file"
            )
        except OSError as error:
            yield ImageError("unreadable", str(error))


def read_inline(_root: Store, rows: pa.Table) -> Iterator[bytes | ImageError]:
    """Images whose bytes are in the listing."""
    yield from rows["bytes"].to_pylist()


def inline(
    rows: Sequence[dict[str, Any]], root: Store, classes: Sequence[str] | None = None
) -> Listing:
    """A listing of images that were made in memory; rows have `bytes` besides the columns of LISTING."""
    table = listing_table({k: v for k, v in row.items() if k != "bytes"} for row in rows)
    data = pa.array([row["bytes"] for row in rows], pa.binary())
    stamp = stable_id(
        [row["sample_id"] for row in rows], [stable_id(row["bytes"].hex()) for row in rows]
    )
    return Listing(
        table=table.append_column("bytes", data),
        root=root,
        read=read_inline,
        stamp=stamp,
        in_files=False,
        classes=classes,
    )
