"""A fold: everything but the pixels of many shards in one table.

    folded/<hash>.parquet   SPECTRUM without `image`, and `file`: where a row's image lies
    folded/_<hash>.json     names the table, the shards it covers and their files; written last

The record begins with `_`, as tools that read a folder of Parquet files leave such names out.

Commits are a log, and a fold is its checkpoint: the shards it covers need not be read one by one.
Everything in it follows from the shards, so one that is gone or damaged is ignored, and made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

from discl_ray.core.ids import sha256
from discl_ray.core.schema import FILE, SPECTRUM
from discl_ray.core.storage import Stamp, Store
from discl_ray.errors import IntegrityError, UnreadableError

FOLDED = "folded"
"""The folder of folds."""

TABLE, RECORD = "{}.parquet", "_{}.json"
"""Names of both files, with a hash of their own content."""

ROWS = pa.schema([*(field for field in SPECTRUM if field.name != "image"), FILE])
"""Columns of a fold."""

FILES = pa.schema(
    [
        ("shard_id", pa.string()),
        ("file", pa.string()),
        ("rows", pa.int64()),
        ("sha256", pa.string()),
        ("size", pa.int64()),  # null if neither a record nor a fold says it
        ("levels", pa.string()),  # JSON of a record's levels; null in earlier versions
        # What a listing said when the shard was folded, null before that:
        ("record_size", pa.int64()),
        ("record_date", pa.int64()),
        ("file_date", pa.int64()),
    ]
)
"""Committed files, one a row."""


@dataclass(frozen=True)
class Fold:
    """The record of a fold."""

    table: str
    """The file with its rows, relative to the run."""
    size: int
    """Of that file, in bytes."""
    sha256: str
    """Of the file's bytes, hexadecimal."""
    rows: int
    files: pa.Table
    """FILES that it covers."""
    record: str = ""
    """The file this was read from."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any], record: str = "") -> Self:
        """The fold of a JSON object, which a file holds.

        Raises LookupError, TypeError, ValueError or ArrowException if it is none, or lacks columns
        that later versions have.
        """
        if value["columns"] != ROWS.names:
            raise ValueError("other columns")
        files = pa.table(value["files"], schema=FILES)
        return cls(
            value["table"], value["size"], value["sha256"], value["rows"], files, record=record
        )

    def as_json(self) -> bytes:
        """The record's bytes."""
        value = {
            "table": self.table,
            "size": self.size,
            "sha256": self.sha256,
            "rows": self.rows,
            "columns": ROWS.names,
            "files": self.files.to_pydict(),
        }
        return json.dumps(value, sort_keys=True).encode()


NOTHING = Fold("", 0, "", 0, FILES.empty_table())
"""A fold of no shard, where there is none."""


def named(data: bytes, pattern: str) -> str:
    """The name of a file by its content, in the folder of folds."""
    digest = sha256(data)
    return f"{FOLDED}/{pattern.format(digest[:16])}"


def newest_fold(run: Store) -> Fold:
    """The fold that was written last; NOTHING if there is none, or none that is whole.

    Raises UnreadableError if the disk or the network fails.
    """
    listed = run.stamps(FOLDED)
    records = [name for name in listed if name.endswith(".json")]
    records.sort(key=lambda name: listed[name].date or 0, reverse=True)
    for name in records:
        try:
            with run.reading(name):
                fold = _read_record(run, name)
        except UnreadableError:
            raise
        except IntegrityError:
            continue
        if _size(listed, fold.table) == fold.size:
            return fold
    return NOTHING


def _read_record(run: Store, name: str) -> Fold:
    """A fold's record; raises ValueError if its name is not that of its bytes."""
    data = run.read(name)
    if named(data, RECORD) != name:
        raise ValueError("not its content's name")
    return Fold.from_json(json.loads(data), name)


def _size(listed: Mapping[str, Stamp], name: str) -> int | None:
    """The size of a listed file; None if it is not listed."""
    return listed[name].size if name in listed else None
