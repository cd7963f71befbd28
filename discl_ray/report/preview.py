"""A preview's sheet: its images with every filter's verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from textwrap import fill
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from discl_ray.core.sources import image_bytes
from discl_ray.errors import ImageError
from discl_ray.plan.forecast import passed
from discl_ray.report.acceptance import rule_words
from discl_ray.report.canvas import FAINT, PAPER, RED, Box, Canvas, Colour, thumbnail
from discl_ray.report.sheet import column_names
from discl_ray.spectrum.config import FilterConfig

SIDE = 96
"""Side of an image, in pixels."""
COLUMN, ROW = 108, 124
"""From an image to the next, across and down."""
LEFT, TOP = 104, 130
"""Where the first image is."""
BETWEEN = 18
"""Extra space between two sources."""
MARGIN = 16
"""Of the legend."""
WIDTH = 520
"""Least width of a sheet: the legend's."""
GREEN = (22, 130, 70)
"""Of the disc that marks an accepted image."""
PALE = (232, 230, 224)
"""Of the box of an image that could not be made."""

Row = Mapping[str, Any]
"""A row of a table as plain values."""
Verdicts = Mapping[str, NDArray[np.bool_]]
"""By filter mode: whether it passes each row of a spectrum, shape (rows,)."""

COLUMNS = [
    "sample_id",
    "lam_pct",
    "replica",
    "image",
    "error",
    "text_sim",
    "text_rank",
    "source_text_sim",
]


@dataclass(frozen=True)
class _Cell:
    """A made image and its verdicts."""

    row: Row
    """Of the spectrum, the COLUMNS only."""
    passes: Mapping[str, bool]
    """By filter mode."""


@dataclass(frozen=True)
class _Grid:
    """Where the images of a preview are."""

    levels: Sequence[int]
    """λ in percent, ascending."""
    replicas: Sequence[int]
    """Numbers of the replicas, ascending."""

    @property
    def block(self) -> int:
        """Height of a source's rows."""
        return len(self.replicas) * ROW + BETWEEN

    def canvas(self, sources: int) -> Canvas:
        """An empty sheet for a number of sources."""
        columns = len(self.levels) + 1
        width = LEFT + columns * COLUMN + 8
        height = TOP + sources * self.block
        return Canvas(max(WIDTH, width), height)

    def box(self, source: int, line: int, column: int) -> Box:
        """Where a source's image of a replica (`line`) and a λ (`column`) is."""
        x = LEFT + column * COLUMN
        top = TOP + source * self.block
        y = top + line * ROW
        return Box(x, y, SIDE)

    def real(self, source: int) -> Box:
        """Where a source's own image is: last in its rows, half way down."""
        column = len(self.levels)
        first = self.box(source, 0, column)
        below = len(self.replicas) - 1
        y = first.y + below * ROW // 2
        return Box(first.x, y, SIDE)


def preview_sheet(
    spectrum: pa.Table, sources: pa.Table, config: FilterConfig, note: str = ""
) -> bytes:
    """A PNG: a row per source and replica, a column per λ, and the real image last.

    Under each image are its text_sim, its rank, and a mark per filter mode. `spectrum` needs images
    and verdicts; `sources` is SAMPLES. A `note` is written in red above the sheet.
    """
    levels = _sorted_values(spectrum["lam_pct"])
    replicas = _sorted_values(spectrum["replica"])
    grid = _Grid(levels, replicas)
    verdicts = passed(spectrum, config)
    cells = _cells(spectrum, verdicts)
    shown = sorted(sources.to_pylist(), key=lambda source: source["label"])
    canvas = grid.canvas(len(shown))
    _put_legend(canvas, config, list(verdicts))
    for column, name in enumerate(column_names(levels)):
        first = grid.box(0, 0, column)
        above = first.above(TOP - 14)
        canvas.text(above, name, 14, anchor="mm")
    for number, source in enumerate(shown):
        sample_id = source["sample_id"]
        score = _real_score(cells, sample_id)
        _put_source(canvas, grid.real(number), source, score)
        for line, replica in enumerate(replicas):
            for column, lam_pct in enumerate(levels):
                box = grid.box(number, line, column)
                cell = cells[sample_id, replica, lam_pct]
                _put_cell(canvas, box, cell, config.mode)
    return canvas.png(note)


def _sorted_values(column: pa.ChunkedArray) -> list[int]:
    """The values of a column of integers, each once."""
    values = set(column.to_pylist())
    return sorted(values)


_Cells = dict[tuple[str, int, int], _Cell]
"""By sample_id, replica and lam_pct."""


def _cells(spectrum: pa.Table, verdicts: Verdicts) -> _Cells:
    """The cells of a spectrum."""
    cells: _Cells = {}
    rows = spectrum.select(COLUMNS).to_pylist()
    for number, row in enumerate(rows):
        passes = {mode: bool(of_mode[number]) for mode, of_mode in verdicts.items()}
        key = row["sample_id"], row["replica"], row["lam_pct"]
        cells[key] = _Cell(row, passes)
    return cells


def _real_score(cells: _Cells, sample_id: str) -> float | None:
    """text_sim of a real image; None if it has none."""
    for (of_sample, _, _), cell in cells.items():
        if of_sample != sample_id:
            continue
        score = cell.row["source_text_sim"]
        if score is not None:
            return score
    return None


def _put_source(canvas: Canvas, box: Box, source: Row, score: float | None) -> None:
    """Puts a real image into its box, and its class's name left of the rows made from it."""
    class_name = str(source["class_name"])
    name = fill(class_name, 12)
    _, middle = box.center
    beside = LEFT - 14, middle
    canvas.text(beside, name, 13, anchor="rm")
    data = _bytes_of(source["image"])
    _put_image(canvas, box, data, "unreadable")
    _put_score(canvas, box, score, None)


def _put_cell(canvas: Canvas, box: Box, cell: _Cell, configured: str) -> None:
    """Puts a made image into its box, and its scores and a mark per filter mode under it."""
    row = cell.row
    data = row["image"]["bytes"]
    reason = row["error"] or "no image"
    _put_image(canvas, box, data, reason)
    _put_score(canvas, box, row["text_sim"], row["text_rank"])
    right = box.x + SIDE
    _, middle = box.under(10)
    from_the_right = reversed(list(cell.passes))
    for mode in from_the_right:
        ok = cell.passes[mode]
        mark = _mark(ok, mode == configured)
        right -= mark.width
        top = middle - mark.height // 2
        canvas.paste(mark, (right, top))
        right -= 3


def _put_image(canvas: Canvas, box: Box, data: bytes | None, reason: str) -> None:
    """Puts an image into its box, or the reason why there is none."""
    try:
        small = thumbnail(data or b"", SIDE)
        canvas.paste(small, box.at)
    except ImageError:
        canvas.fill(box, PALE)
        words = reason.replace("_", "\n")
        canvas.text(box.center, words, 11, ink=FAINT, anchor="mm")


def _bytes_of(image: Row) -> bytes | None:
    """A real image's bytes; None if they can no longer be read."""
    try:
        return image_bytes(image)
    except OSError:
        return None


def _put_score(canvas: Canvas, box: Box, text_sim: float | None, rank: int | None) -> None:
    """Writes text_sim, and the rank if there is one, under an image."""
    if text_sim is None:
        return
    words = f"{text_sim:.2f}"
    if rank is not None:
        words += f" · {rank}"
    canvas.text(box.under(10), words, 11)


@cache
def _mark(ok: bool, configured: bool) -> Image.Image:
    """A green disc or a red cross; small and pale if the mode is not the configured one."""
    side = 12 if configured else 9
    large = 8 * side  # drawn large and scaled down, so that edges are smooth
    mark = Image.new("RGB", (large, large), PAPER)
    draw = ImageDraw.Draw(mark)
    near = large // 8
    far = large - 1 - near
    strength = 1.0 if configured else 0.5
    colour = _blend(GREEN if ok else RED, strength)
    falling = near, near, far, far
    rising = near, far, far, near
    if ok:
        draw.ellipse(falling, fill=colour)
    else:
        width = large // 5
        draw.line(falling, fill=colour, width=width)
        draw.line(rising, fill=colour, width=width)
    return mark.resize((side, side), Image.Resampling.LANCZOS)


def _blend(colour: Colour, strength: float) -> Colour:
    """A colour on paper, as if it covered a share `strength` of it."""

    def channel(ink: int, paper: int) -> int:
        """A channel of the blend."""
        visible = (1 - strength) * paper
        return round(strength * ink + visible)

    red, green, blue = map(channel, colour, PAPER)
    return red, green, blue


def _put_legend(canvas: Canvas, config: FilterConfig, modes: Sequence[str]) -> None:
    """Explains, above the images, what is under each of them."""
    canvas.text((MARGIN, 18), "text_sim · rank of the own class, then what each filter says:", 12)
    y = 40
    for mode in modes:
        configured = mode == config.mode
        x = MARGIN + 8
        for ok in (True, False):
            mark = _mark(ok, configured)
            half = mark.width // 2
            corner = x - half, y - half
            canvas.paste(mark, corner)
            x += 18
        rule = rule_words(config, mode)
        words = f"{mode}: {rule}"
        beside = MARGIN + 44, y
        if configured:
            canvas.text(beside, f"{words} (configured)", 12)
        else:
            canvas.text(beside, words, 12, ink=FAINT)
        y += 18
