# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""The contact sheet of a spectrum: a row per real image, a column per λ from text-typical to real.

Rejected images are crossed out.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.core.lam import pct_to_lam
from discl_ray.core.sources import image_bytes
from discl_ray.errors import ImageError
from discl_ray.report.canvas import FAINT, Canvas, fitted, font_of, thumbnail
from discl_ray.spectrum.filter import KEPT

CELL = 72
"""Side of an image, in pixels."""
PITCH = CELL + 4
"""From an image to the next."""
LEFT, TOP = 92, 34
"""Where the first image is."""
BOTTOM = 22
MAX_ROWS = 14

COLUMNS = ["sample_id", "lam_pct", "replica", "role", "image", "kept", "reason"]

Cell = Mapping[str, Any]
"""A row of a spectrum, the COLUMNS only."""


def contact_sheet(
    spectrum: pa.Table, sources: pa.Table, *, max_rows: int = MAX_ROWS, note: str = ""
) -> bytes:
    """A PNG of up to `max_rows` real training images, evenly over the classes.

    Each row shows the first replica at every λ, and the real image last. `spectrum` needs images
    and verdicts; `sources` is SAMPLES. A `note` is written in red above the sheet.
    """
    levels = sorted(set(spectrum["lam_pct"].to_pylist()))
    cells = _first_replicas(spectrum)
    shown = pick_shown(sources, max_rows).to_pylist()
    canvas = Canvas(
        width=LEFT + (len(levels) + 1) * PITCH + PITCH - CELL,
        height=TOP + len(shown) * PITCH + BOTTOM,
    )
    for column, name in enumerate(column_names(levels)):
        canvas.text((LEFT + column * PITCH + CELL // 2, TOP // 2), name, 13, anchor="mm")
    for line, sample in enumerate(shown):
        y = TOP + line * PITCH
        name = fitted(str(sample["class_name"]), font_of(13), LEFT - 16)
        canvas.text((LEFT - 10, y + CELL // 2), name, 13, anchor="rm")
        for column, lam_pct in enumerate(levels):
            cell = cells.get((sample["sample_id"], lam_pct))
            if cell is not None:
                _put_made(canvas, (LEFT + column * PITCH, y), cell)
        with suppress(OSError, ImageError):  # a file that is gone leaves its place empty
            real = thumbnail(image_bytes(sample["image"]), CELL)
            canvas.paste(real, (LEFT + len(levels) * PITCH, y))
    bottom = canvas.image.height - BOTTOM // 2
    canvas.text((LEFT, bottom), "crossed out: rejected by the filter", 11, ink=FAINT)
    return canvas.png(note)


def column_names(levels: list[int]) -> list[str]:
    """Names of the columns of λ, in percent, and of the real image's."""
    return [*(f"λ = {pct_to_lam(lam_pct):g}" for lam_pct in levels), "real"]


def _first_replicas(spectrum: pa.Table) -> dict[tuple[str, int], Cell]:
    """The cell of each (sample_id, lam_pct): of several attempts the one that was kept."""
    cells: dict[tuple[str, int], Cell] = {}
    for row in spectrum.select(COLUMNS).to_pylist():
        if row["role"] != "train" or row["replica"] != 0:
            continue
        key = row["sample_id"], row["lam_pct"]
        if row["kept"] or key not in cells:
            cells[key] = row
    return cells


def _put_made(canvas: Canvas, at: tuple[int, int], cell: Cell) -> None:
    """Puts a made image at its place; nothing if there is none."""
    data = cell["image"]["bytes"]
    if data is None:
        return
    canvas.paste(thumbnail(data, CELL), at)
    if cell["reason"] != KEPT:
        canvas.cross_out(at, CELL)


def pick_shown(sources: pa.Table, max_rows: int = MAX_ROWS) -> pa.Table:
    """Up to `max_rows` training images of SAMPLES, evenly over the classes, ordered by class."""
    train = np.flatnonzero(pc.equal(sources["split"], "train").to_numpy())
    labels = sources["label"].to_numpy()[train]
    order = train[np.argsort(labels, kind="stable")]
    count = min(len(order), max_rows)
    rows = [int(order[i * len(order) // count]) for i in range(count)]
    # slices share the images' memory; `take` would copy it
    return pa.concat_tables([sources.slice(0, 0), *(sources.slice(row, 1) for row in rows)])


def made_from(spectrum: pa.Table, sources: pa.Table) -> pa.Table:
    """The rows of a spectrum that were made from the real images `sources` (SAMPLES)."""
    return spectrum.filter(pc.is_in(spectrum["sample_id"], sources["sample_id"].combine_chunks()))
