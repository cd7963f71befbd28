"""Images that another run has made: equal gids are equal images, so they need not be made again.

When one file of a data set is edited, or levels or replicas are added, only what is new costs a
GPU. What is taken over is scored again, with the run's own scorer and class prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core.columns import as_dictionary, is_in, negate, rows_in, rows_where
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.spectrum.files import Ledger, data_stamps, read_ledger, wrong_sizes
from discl_ray.spectrum.read import read_files, read_rows
from discl_ray.spectrum.records import each_of

FILE = "reused.parquet"

REUSED = pa.schema([(name, pa.string()) for name in ("gid", "directory", "file")])
"""Columns of FILE, the images a run may take over: gid, another run's directory beside this one,
and a file in it."""

PLACED = pa.schema([REUSED.field("gid"), REUSED.field("file")])
"""Columns of the images of one run."""

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


def committed_images(run: Store) -> pa.Table:
    """PLACED of the committed images of a run, in any layout; from its fold where it has one.

    What lies in damaged files is left out, and everything if a commit record is damaged.
    """
    try:
        ledger = _whole_files(run, read_ledger(run))
    except IntegrityError:
        return PLACED.empty_table()
    try:
        return read_rows(run, PLACED.names, ledger)
    except IntegrityError:
        # A file is damaged inside, and the others are read all the same.
        return _readable_images(run, ledger)


def _whole_files(run: Store, ledger: Ledger) -> Ledger:
    """A ledger without the files that are gone, or not as long as was committed."""
    wrong = list(wrong_sizes(run, ledger, data_stamps(run), ""))
    if not wrong:
        return ledger
    files = ledger.files.filter(negate(is_in(ledger.files["file"], wrong)))
    folded = ledger.folded.filter(negate(is_in(ledger.folded["file"], wrong)))
    return replace(ledger, files=files, folded=folded)


def _readable_images(run: Store, ledger: Ledger) -> pa.Table:
    """PLACED of the images of all files that can be read, each read by itself."""

    def read(file: str) -> pa.Table:
        try:
            return read_files(run, PLACED.names, [file])
        except IntegrityError:
            return PLACED.empty_table()

    return pa.concat_tables([PLACED.empty_table(), *each_of(read, ledger.names)])


class Reuse:
    """The images a run may take over."""

    def __init__(self, beside: Store, places: pa.Table) -> None:
        """`beside` is the folder of all runs of this name, `places` is REUSED by gid."""
        self._beside = beside
        self._gids = gids_as_bytes(places["gid"])
        # few directories and files, of which each row names one: their numbers take less memory
        self._directory = as_dictionary(places["directory"])
        self._file = as_dictionary(places["file"])

    @classmethod
    def open(cls, run: Store) -> Self:
        """What was found when the run was laid out."""
        places = run.read_table(FILE) if run.exists(FILE) else REUSED.empty_table()
        return cls(run.parent, places)

    def take(self, gids: Iterable[str]) -> dict[str, Image]:
        """Those of the images that are still there."""
        # by file, so that each is read once
        by_file: dict[Place, list[str]] = {}
        for gid in gids:
            place = self._place(gid)
            if place is not None:
                by_file.setdefault(place, []).append(gid)
        found: dict[str, Image] = {}
        for place, wanted in by_file.items():
            found.update(self._read(place, wanted))
        return found

    def _place(self, gid: str) -> Place | None:
        """Where an image is; None if no run has made it."""
        row = int(np.searchsorted(self._gids, gid.encode()))
        if row == len(self._gids) or self._gids[row] != gid.encode():
            return None
        return Place(self._directory[row].as_py(), self._file[row].as_py())

    def _read(self, place: Place, wanted: Sequence[str]) -> Iterator[tuple[str, Image]]:
        """The wanted images of a file that were made; none if it is gone or damaged by now."""
        name = f"{place.directory}/{place.file}"
        columns = ["gid", "image", "status", "micro_batch"]
        try:
            table = self._beside.read_table(name, columns)
        except IntegrityError:
            return
        made = rows_where(rows_in(table, "gid", wanted), status=OK)
        for row in made.to_pylist():
            yield row["gid"], Image(row["image"]["bytes"], row["micro_batch"])


def gids_as_bytes(gids: pa.ChunkedArray) -> NDArray[np.bytes_]:
    """Gids in an array of their own width, which is sorted and searched without an index."""
    encoded = gids.cast(pa.binary())
    parts = [chunk.to_numpy(zero_copy_only=False).astype("S") for chunk in encoded.chunks]
    return np.concatenate([np.zeros(0, "S32"), *parts])
