"""Commit records: which files hold a shard's rows.

A record names the files with their sizes and SHA-256, as written. It is written last, so a file
that no record names does not exist for readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeAlias, TypeVar

from discl_ray.core.storage import Remedy, Store
from discl_ray.spectrum.remedies import COMMITS, images_again

READERS = 16
"""Files opened at once: mostly they wait for a disk or a network."""

Levels: TypeAlias = Mapping[str, Mapping[str, int]]
"""`role` -> λ in percent, as text -> number of rows."""

T = TypeVar("T")


@dataclass(frozen=True)
class CommittedFile:
    """A data file that a commit record names."""

    name: str
    """Relative to the run."""
    rows: int
    sha256: str
    """Of the file's bytes, hexadecimal."""
    size: int | None = None
    """In bytes; records of earlier versions do not say it."""


@dataclass(frozen=True)
class Commit:
    """A commit record: which files hold a shard's rows."""

    shard_id: str
    files: tuple[CommittedFile, ...]
    """One; several in the layout of an earlier version, which had a file for each λ."""
    status: Mapping[str, int]
    """`status` -> number of rows that have it."""
    levels: Levels | None = None
    """How many rows there are at each λ; records of earlier versions do not say it."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The record that a JSON object holds; raises LookupError or TypeError if it is none."""
        files = [
            CommittedFile(file["name"], file["rows"], file["sha256"], file.get("size"))
            for file in value["files"]
        ]
        return cls(
            shard_id=value["shard_id"],
            files=tuple(files),
            # Nothing depends on the counts, so a record without them is a record.
            status=value.get("status", {}),
            levels=value.get("levels"),
        )


def record_name(shard_id: str) -> str:
    """The file of a shard's commit record."""
    return f"{COMMITS}/{shard_id}.json"


def shard_of(record: str) -> str:
    """The shard whose commit record a file is."""
    file = record.removeprefix(f"{COMMITS}/")
    return file.removesuffix(".json")


def committed(run: Store) -> dict[str, Commit]:
    """Commit records by shard.

    Raises IntegrityError if one is damaged, UnreadableError if the disk or the network fails.
    """
    remedy = partial(images_again, run)
    read = partial(read_commit, run, remedy)
    records = each_of(read, run.list(COMMITS, ".json"))
    return {record.shard_id: record for record in records}


def committed_ids(run: Store) -> set[str]:
    """Shards that have a commit record; none is read."""
    return {shard_of(name) for name in run.list(COMMITS, ".json")}


def read_commit(run: Store, remedy: Remedy, name: str) -> Commit:
    """A commit record.

    Raises IntegrityError for one that is damaged, or of an unknown layout.
    """
    with run.reading(name, remedy):
        record = Commit.from_json(run.read_json(name, remedy))
        if not record.files:
            raise ValueError("no record of this shard")
        # A copied record would let another shard's images count twice.
        if record.shard_id != shard_of(name):
            raise ValueError("no record of this shard")
        return record


def each_of(function: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """A function of every name, several at once, in their order."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, names))
