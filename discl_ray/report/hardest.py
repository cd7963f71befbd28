"""Hard samples to look at: a table by class, and a sheet of the hardest or of the rarest ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from discl_ray.core.columns import both, equal, is_valid, mean, negate, rows_where
from discl_ray.core.sources import image_bytes
from discl_ray.errors import ImageError
from discl_ray.plan.hardness import class_counts
from discl_ray.report.canvas import (
    FAINT,
    INK,
    NOTE_LETTER,
    RED,
    Box,
    Canvas,
    Colour,
    Point,
    fitted,
    font_of,
    thumbnail,
)

SIDE = 96
"""Side of an image, in pixels."""
COLUMN, ROW = 128, 156
"""From an image to the next, across and down."""
TOP = 48
"""Height of a section's title."""
MARGIN = 16
TITLE_LINE = 16
COLUMNS = 8
"""Images in a row."""

TAIL_LEFT = 180
"""Where images begin on a sheet of rare classes."""
TAIL_PITCH = SIDE + 12
TAIL_COLUMNS = 4
"""Columns a sheet of rare classes has at least: its title's width."""

HARD_ROWS, SUSPECT_ROWS, TAIL_ROWS = 4, 2, 14
"""Rows of a sheet, at most."""

CLASSES = 40
"""Classes that the table names; of more, those with the most hard images."""
NAME = 28
"""Letters of a class's name in the table, at most."""


class _Count(NamedTuple):
    """A line of the table."""

    name: str
    train: int
    hard: int
    suspect: int

    def __str__(self) -> str:
        name = self.name
        if len(name) > NAME:
            name = name[: NAME - 1] + "…"
        return _line(name, self.train, self.hard, self.suspect)


def _line(name: str, *numbers: object) -> str:
    """A line of the table: a name and right-aligned numbers."""
    cells = [f"{number!s:>8}" for number in numbers]
    return " ".join([f"  {name:<{NAME}}", *cells])


def class_table(judged: pa.Table) -> str:
    """Training images, hard ones and suspects by class, from HARDNESS.

    A line per class; of many classes only those with the most hard images.
    """
    counts = _counts(judged)
    shown, rest = counts, list[_Count]()
    if len(counts) > CLASSES:
        by_hard = sorted(counts, key=lambda of_class: -of_class.hard)
        shown, rest = by_hard[:CLASSES], by_hard[CLASSES:]
    lines = [_line("class", "train", "hard", "suspect"), *map(str, shown)]
    if rest:
        others = _total(f"{len(rest)} other classes", rest)
        lines.append(str(others))
    if counts:
        lines.append(str(_total("all", counts)))
    return "\n".join(lines)


def _counts(judged: pa.Table) -> list[_Count]:
    """Counts by class, in the order of the labels."""
    train = rows_where(judged, split="train")
    sums = train.group_by(["label", "class_name"]).aggregate(
        [("hard", "count"), ("hard", "sum"), ("suspect", "sum")]
    )
    return [
        _Count(row["class_name"], row["hard_count"], row["hard_sum"], row["suspect_sum"])
        for row in sums.sort_by("label").to_pylist()
    ]


def _total(name: str, counts: Iterable[_Count]) -> _Count:
    _, train, hard, suspect = zip(*counts, strict=True)
    return _Count(name, sum(train), sum(hard), sum(suspect))


def agreement(judged: pa.Table) -> str:
    """How often the classifier agrees with the labels, from HARDNESS by confidence.

    Hardness by a classifier that is often wrong means little.
    """
    shares: list[str] = []
    for split in ("train", "val"):
        rows = rows_where(judged, split=split)
        predicted = rows.filter(is_valid(rows["pred"]))
        share = mean(equal(predicted["pred"], predicted["label"]))
        if share is not None:
            shares.append(f"{100 * share:.1f} % of {split}")
    return f"the classifier agrees with the labels of {', '.join(shares)}"


def hardest_rows(judged: pa.Table) -> pa.Table:
    """The HARDNESS rows of a sheet: the hardest training images, then the surest suspects.

    A suspect is sure if the classifier gives another class a high probability.
    """
    train = rows_where(judged, split="train")
    hard = train.filter(train["hard"]).sort_by("rank")
    suspects = train.filter(both(train["suspect"], negate(train["hard"])))
    suspects = suspects.sort_by([("prob_pred", "descending"), ("rank", "ascending")])
    hardest = hard.slice(0, HARD_ROWS * COLUMNS)
    surest = suspects.slice(0, SUSPECT_ROWS * COLUMNS)
    return pa.concat_tables([hardest, surest])


def tail_rows(judged: pa.Table) -> pa.Table:
    """The HARDNESS rows of a sheet of rare classes: up to COLUMNS of each of the rarest."""
    hard = rows_where(judged, split="train", hard=True).sort_by("rank")
    label = hard["label"].to_numpy()
    _, first = np.unique(label, return_index=True)
    rarest = label[np.sort(first)][:TAIL_ROWS]
    rows = [np.empty(0, np.int64)]
    for of_class in rarest:
        rows.append(np.flatnonzero(label == of_class)[:COLUMNS])
    return hard.take(pa.array(np.concatenate(rows)))


def hardest_sheet(
    shown: pa.Table, samples: pa.Table, classes: Sequence[str], *, title: str, note: str = ""
) -> bytes:
    """A PNG of `hardest_rows`: class, its probability, and the class that was predicted instead.

    Suspects are framed in red. `samples` are the same rows of SAMPLES with their images. A `note`
    is written in red above the sheet.
    """
    images = _images(samples)
    sections = _sections(shown)
    heights = [TOP + _lines(rows) * ROW for rows in sections.values()]
    width = 2 * MARGIN + COLUMNS * COLUMN
    canvas, top = _titled(width, sum(heights), title)
    for (words, rows), height in zip(sections.items(), heights, strict=True):
        canvas.text((MARGIN, top + TOP // 2), words, 14)
        for number, row in enumerate(rows):
            line, column = divmod(number, COLUMNS)
            box = Box(MARGIN + column * COLUMN, top + TOP + line * ROW, SIDE)
            _put_image(canvas, box, images[row["sample_id"]])
            _put_prediction(canvas, box, row, classes)
        top += height
    return canvas.png(note)


def _sections(shown: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Rows by the title they are shown under."""
    rows = shown.to_pylist()
    sections = {
        "the hardest images": [row for row in rows if row["hard"]],
        "suspect labels: the classifier is sure of another class; no spectrum is made of them": [
            row for row in rows if not row["hard"]
        ],
    }
    return {title: part for title, part in sections.items() if part}


def _lines(rows: Sequence[object]) -> int:
    """Lines of COLUMNS images, the last one not always full."""
    return -(-len(rows) // COLUMNS)


def _put_prediction(
    canvas: Canvas, box: Box, row: Mapping[str, Any], classes: Sequence[str]
) -> None:
    """Writes the class and the predicted class under an image; a suspect gets a red frame."""
    ink = INK
    if row["suspect"]:
        ink = RED
        canvas.frame(box, RED, width=3)
    name = str(row["class_name"])
    _put_line(canvas, box.under(12), name, row["prob_true"], ink)
    if row["pred"] == row["label"]:
        canvas.text(box.under(28), "predicted correctly", 12, ink=FAINT)
    else:
        predicted = f"→ {classes[row['pred']]}"
        _put_line(canvas, box.under(28), predicted, row["prob_pred"], ink)


def tail_sheet(
    shown: pa.Table, samples: pa.Table, judged: pa.Table, *, title: str, note: str = ""
) -> bytes:
    """A PNG of `tail_rows`: a row per class, with the number of its training images from HARDNESS.

    `samples` are the same rows of SAMPLES with their images. A `note` is written in red above the
    sheet.
    """
    images = _images(samples)
    counts = class_counts(judged)
    by_class: dict[int, list[dict[str, Any]]] = {}
    for row in shown.to_pylist():
        by_class.setdefault(row["label"], []).append(row)
    columns = max([TAIL_COLUMNS, *map(len, by_class.values())])
    width = TAIL_LEFT + columns * TAIL_PITCH + MARGIN
    height = MARGIN + len(by_class) * TAIL_PITCH
    canvas, top = _titled(width, height, title)
    for line, (label, rows) in enumerate(by_class.items()):
        first = Box(TAIL_LEFT, top + MARGIN + line * TAIL_PITCH, SIDE)
        _put_class(canvas, first, str(rows[0]["class_name"]), counts[label])
        for column, row in enumerate(rows):
            box = first._replace(x=TAIL_LEFT + column * TAIL_PITCH)
            _put_image(canvas, box, images[row["sample_id"]])
    return canvas.png(note)


def _put_class(canvas: Canvas, first: Box, name: str, count: int) -> None:
    """Writes a class's name, cut if it is long, and its number of images left of the first one."""
    words = fitted(name, font_of(13), first.x - 14 - MARGIN)
    canvas.text(first.beside(14, down=-9), words, 13, anchor="rm")
    number = f"{count} for training"
    canvas.text(first.beside(14, down=9), number, 12, ink=FAINT, anchor="rm")


def _images(samples: pa.Table) -> dict[str, dict[str, Any]]:
    """`image` by sample_id."""
    return {row["sample_id"]: row["image"] for row in samples.to_pylist()}


def _titled(width: int, height: int, title: str) -> tuple[Canvas, int]:
    """A sheet with a title above a space of a size in pixels, and where that space begins."""
    lines = wrap(title, width // NOTE_LETTER)
    top = MARGIN + TITLE_LINE * len(lines)
    canvas = Canvas(width, top + height)
    for number, line in enumerate(lines):
        y = MARGIN + 4 + TITLE_LINE * number
        canvas.text((MARGIN, y), line, 12, ink=FAINT)
    return canvas, top


def _put_image(canvas: Canvas, box: Box, image: Mapping[str, Any]) -> None:
    """Puts an image into its box, or an empty frame if it can no longer be read."""
    try:
        canvas.paste(thumbnail(image_bytes(image), SIDE), box.at)
    except (OSError, ImageError):
        canvas.frame(box, FAINT)


def _put_line(canvas: Canvas, at: Point, name: str, probability: float, ink: Colour) -> None:
    """Writes a name, cut if it is long, and a probability."""
    font = font_of(12)
    end = f" {probability:.3f}"
    room = COLUMN - 6 - font.getlength(end)
    canvas.text(at, fitted(name, font, room) + end, 12, ink=ink)
