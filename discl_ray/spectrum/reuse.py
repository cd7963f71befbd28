"""Images that another run has made: equal gids are equal images, so they need not be made again.

When one file of a data set is edited, or levels or replicas are added, only what is new costs a
GPU. What is taken over is scored again, with the run's own scorer and class prompts.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import pyarrow as pa

from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.spectrum.files import committed_files

FILE = "reused.parquet"

REUSED = pa.schema([(name, pa.string()) for name in ("gid", "directory", "file")])
"""Columns of FILE, the images a run may take over: gid, another run's directory beside this one,
and a file in it."""

OK = "ok"
"""`status` of an image that was made."""


class Place(NamedTuple):
    """Where an image lies."""

    directory: str
    """Of another run, beside this one's."""
    file: str
    """With many images, relative to the directory."""


class Image(NamedTuple):
    """What another run made."""

    data: bytes
    """Encoded."""
    micro_batch: int
    """Images that were made with it at once."""


def gids_by_file(run: Store) -> Iterator[tuple[str, list[str]]]:
    """The committed files of a run, in any layout, with their gids.

    Damaged files are left out, and all of them if a commit record is damaged.
    """
    try:
        files = committed_files(run)
    except IntegrityError:
        return
    for file in files:
        try:
            yield file, run.read_table(file, ["gid"])["gid"].to_pylist()
        except IntegrityError:
            continue


@dataclass
class Reuse:
    """The images a run may take over."""

    beside: Store
    """The folder of all runs of this name."""
    places: dict[str, Place] = field(default_factory=dict[str, Place])
    """By gid."""

    @classmethod
    def open(cls, run: Store) -> Self:
        """What was found when the run was laid out."""
        places: dict[str, Place] = {}
        if run.exists(FILE):
            for row in run.read_table(FILE).to_pylist():
                places[row["gid"]] = Place(row["directory"], row["file"])
        return cls(run.parent, places)

    def take(self, gids: Iterable[str]) -> dict[str, Image]:
        """Those of the images that are still there."""
        # By file, so that each is read once.
        by_file: dict[Place, set[str]] = {}
        for gid in gids:
            if gid in self.places:
                by_file.setdefault(self.places[gid], set()).add(gid)
        found: dict[str, Image] = {}
        for place, wanted in by_file.items():
            found.update(self._read(place, wanted))
        return found

    def _read(self, place: Place, wanted: Container[str]) -> Iterator[tuple[str, Image]]:
        """The wanted images of a file that were made; none if it is gone or damaged by now."""
        name = f"{place.directory}/{place.file}"
        columns = ["gid", "image", "status", "micro_batch"]
        try:
            table = self.beside.read_table(name, columns)
        except IntegrityError:
            return
        for row in table.to_pylist():
            if row["gid"] in wanted and row["status"] == OK:
                data = row["image"]["bytes"]
                yield row["gid"], Image(data, row["micro_batch"])
