"""The contact sheet of a spectrum: a row per real image, a column per λ from text-typical to real.

Rejected images are crossed out.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa

from discl_ray.core.columns import as_numpy, equal, rows_in, rows_where
from discl_ray.core.lam import pct_to_lam
from discl_ray.core.sources import image_bytes
from discl_ray.errors import ImageError
from discl_ray.report.canvas import FAINT, Box, Canvas, fitted, font_of, thumbnail
from discl_ray.spectrum.filter import KEPT

CELL = 72
"""Side of an image, in pixels."""
GAP = 4
"""Between two images."""
PITCH = CELL + GAP
"""From an image to the next."""
LEFT, TOP = 92, 34
"""Where the first image is."""
BOTTOM = 22
"""Height of the line below the images."""
MAX_ROWS = 14
"""Real images that are shown, at most."""

COLUMNS = ["sample_id", "lam_pct", "replica", "role", "image", "kept", "reason"]
"""Of a spectrum, which a sheet needs."""

Cell = Mapping[str, Any]
"""A row of a spectrum, the COLUMNS only."""
Cells = dict[tuple[str, int], Cell]
"""By sample_id and lam_pct."""


def contact_sheet(
    spectrum: pa.Table, sources: pa.Table, *, max_rows: int = MAX_ROWS, note: str = ""
) -> bytes:
    """A PNG of up to `max_rows` real training images, evenly over the classes.

    Each row shows the first replica at every λ, and the real image last. `spectrum` needs images
    and verdicts; `sources` is SAMPLES. A `note` is written in red above the sheet.
    """
    lam_pct_of_rows = spectrum["lam_pct"].to_pylist()
    levels = sorted(set(lam_pct_of_rows))
    cells = _first_replicas(spectrum)
    shown = pick_shown(sources, max_rows).to_pylist()
    canvas = _empty_sheet(levels, len(shown))
    for line, sample in enumerate(shown):
        name = str(sample["class_name"])
        _put_name(canvas, line, name)
        for column, lam_pct in enumerate(levels):
            key = sample["sample_id"], lam_pct
            cell = cells.get(key)
            if cell is not None:
                box = _box(line, column)
                _put_made(canvas, box, cell)
        with suppress(OSError, ImageError):  # a file that is gone leaves its place empty
            data = image_bytes(sample["image"])
            small = thumbnail(data, CELL)
            last = _box(line, len(levels))
            canvas.paste(small, last.at)
    return canvas.png(note)


def _empty_sheet(levels: list[int], lines: int) -> Canvas:
    """A sheet with a name above each column and the explanation below."""
    names = column_names(levels)
    columns = len(names)
    width = LEFT + columns * PITCH + GAP
    height = TOP + lines * PITCH + BOTTOM
    canvas = Canvas(width, height)
    for column, name in enumerate(names):
        first = _box(0, column)
        above = first.above(TOP // 2)
        canvas.text(above, name, 13, anchor="mm")
    below = height - BOTTOM // 2
    start = LEFT, below
    canvas.text(start, "crossed out: rejected by the filter", 11, ink=FAINT)
    return canvas


def _box(line: int, column: int) -> Box:
    """Where the image of a line and a column is."""
    x = LEFT + column * PITCH
    y = TOP + line * PITCH
    return Box(x, y, CELL)


def _put_name(canvas: Canvas, line: int, name: str) -> None:
    """Writes a class's name, cut if it is long, left of its row."""
    room = LEFT - 16
    words = fitted(name, font_of(13), room)
    first = _box(line, 0)
    beside = first.beside(10)
    canvas.text(beside, words, 13, anchor="rm")


def column_names(levels: list[int]) -> list[str]:
    """Names of the columns of λ, in percent, and of the real image's."""
    lams = [pct_to_lam(lam_pct) for lam_pct in levels]
    names = [f"λ = {lam:g}" for lam in lams]
    return [*names, "real"]


def _first_replicas(spectrum: pa.Table) -> Cells:
    """The cells of the first replicas: of several attempts the one that was kept."""
    cells: Cells = {}
    for row in _shown(spectrum.select(COLUMNS)).to_pylist():
        key = row["sample_id"], row["lam_pct"]
        if row["kept"] or key not in cells:
            cells[key] = row
    return cells


def _put_made(canvas: Canvas, box: Box, cell: Cell) -> None:
    """Puts a made image into its box; nothing if there is none."""
    data = cell["image"]["bytes"]
    if data is None:
        return
    small = thumbnail(data, CELL)
    canvas.paste(small, box.at)
    if cell["reason"] != KEPT:
        canvas.cross_out(box)


def pick_shown(sources: pa.Table, max_rows: int = MAX_ROWS) -> pa.Table:
    """Up to `max_rows` training images of SAMPLES, evenly over the classes, ordered by class."""
    is_train = equal(sources["split"], "train")
    train = np.flatnonzero(as_numpy(is_train))
    labels = sources["label"].to_numpy()
    order = np.argsort(labels[train], kind="stable")
    by_class = train[order]
    count = min(len(by_class), max_rows)
    # slices share the images' memory; `take` would copy it
    slices = [sources.slice(0, 0)]  # the schema, if there is no image
    for number in range(count):
        place = number * len(by_class) // count
        row = int(by_class[place])
        slices.append(sources.slice(row, 1))
    return pa.concat_tables(slices)


def made_from(spectrum: pa.Table, sources: pa.Table) -> pa.Table:
    """The rows of a spectrum that a sheet of the real images `sources` (SAMPLES) shows."""
    sample_ids = sources["sample_id"].combine_chunks()
    return _shown(rows_in(spectrum, "sample_id", sample_ids))


def _shown(spectrum: pa.Table) -> pa.Table:
    """The rows that a sheet shows: first replicas to train on."""
    return rows_where(spectrum, role="train", replica=0)
