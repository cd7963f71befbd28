"""Hard samples to look at: a table by class, and a sheet of the hardest or of the rarest ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from discl_ray.core.columns import both, equal, is_valid, mean, negate, rows_where
from discl_ray.core.sources import image_bytes
from discl_ray.data.wording import counted
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

HARD_TITLE = "the hardest images"
SUSPECT_TITLE = (
    "suspect labels: the classifier is sure of another class; no spectrum is made of them"
)

CLASSES = 40
"""Classes that the table names; of more, those with the most hard images."""
NAME = 28
"""Letters of a class's name in the table, at most."""


class _Count(NamedTuple):
    """A line of the table."""

    name: str
    """Of the class."""
    train: int
    """Training images."""
    hard: int
    """Hard images among them."""
    suspect: int
    """Images among them whose label may be wrong."""

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
    shown = counts
    rest: list[_Count] = []
    if len(counts) > CLASSES:
        by_hard = sorted(counts, key=lambda of_class: -of_class.hard)
        shown = by_hard[:CLASSES]
        rest = by_hard[CLASSES:]
    lines = [_line("class", "train", "hard", "suspect")]
    lines += [str(count) for count in shown]
    if rest:
        name = counted(len(rest), "other class", "other classes")
        others = _total(name, rest)
        lines.append(str(others))
    if counts:
        everything = _total("all", counts)
        lines.append(str(everything))
    return "\n".join(lines)


def _counts(judged: pa.Table) -> list[_Count]:
    """Counts by class, in the order of the labels."""
    train = rows_where(judged, split="train")
    classes = train.group_by(["label", "class_name"])
    sums = classes.aggregate([("hard", "count"), ("hard", "sum"), ("suspect", "sum")])
    counts: list[_Count] = []
    for row in sums.sort_by("label").to_pylist():
        count = _Count(
            name=row["class_name"],
            train=row["hard_count"],
            hard=row["hard_sum"],
            suspect=row["suspect_sum"],
        )
        counts.append(count)
    return counts


def _total(name: str, counts: Sequence[_Count]) -> _Count:
    """The sum of several lines, under a name of its own."""
    return _Count(
        name=name,
        train=sum(count.train for count in counts),
        hard=sum(count.hard for count in counts),
        suspect=sum(count.suspect for count in counts),
    )


def agreement(judged: pa.Table) -> str:
    """How often the classifier agrees with the labels, from HARDNESS by confidence.

    Hardness by a classifier that is often wrong means little.
    """
    shares: list[str] = []
    for split in ("train", "val"):
        rows = rows_where(judged, split=split)
        predicted = rows.filter(is_valid(rows["pred"]))
        right = equal(predicted["pred"], predicted["label"])
        share = mean(right)
        if share is not None:
            percentage = 100 * share
            shares.append(f"{percentage:.1f} % of {split}")
    listed = ", ".join(shares)
    return f"the classifier agrees with the labels of {listed}"


def hardest_rows(judged: pa.Table) -> pa.Table:
    """The HARDNESS rows of a sheet: the hardest training images, then the surest suspects.

    A suspect is sure if the classifier gives another class a high probability.
    """
    train = rows_where(judged, split="train")
    hard = train.filter(train["hard"]).sort_by("rank")
    only_suspect = both(train["suspect"], negate(train["hard"]))
    suspects = train.filter(only_suspect)
    suspects = suspects.sort_by([("prob_pred", "descending"), ("rank", "ascending")])
    hardest = hard.slice(0, HARD_ROWS * COLUMNS)
    surest = suspects.slice(0, SUSPECT_ROWS * COLUMNS)
    return pa.concat_tables([hardest, surest])


def tail_rows(judged: pa.Table) -> pa.Table:
    """The HARDNESS rows of a sheet of rare classes: up to COLUMNS of each of the rarest."""
    hard = rows_where(judged, split="train", hard=True).sort_by("rank")
    label = hard["label"].to_numpy()
    _, first = np.unique(label, return_index=True)
    # rare classes come first in the order of HARDNESS
    in_order = label[np.sort(first)]
    rarest = in_order[:TAIL_ROWS]
    rows = [np.empty(0, np.int64)]
    for of_class in rarest:
        of_same_class = np.flatnonzero(label == of_class)
        rows.append(of_same_class[:COLUMNS])
    taken = np.concatenate(rows)
    return hard.take(pa.array(taken))


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
            box = _box(number, top + TOP)
            _put_image(canvas, box, images[row["sample_id"]])
            _put_prediction(canvas, box, row, classes)
        top += height
    return canvas.png(note)


def _box(number: int, top: int) -> Box:
    """Where an image is, by its number in its section; `top` is where the section's first is."""
    line, column = divmod(number, COLUMNS)
    x = MARGIN + column * COLUMN
    y = top + line * ROW
    return Box(x, y, SIDE)


def _sections(shown: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Rows by the title they are shown under; a title without rows is left out."""
    sections: dict[str, list[dict[str, Any]]] = {}
    rows = shown.to_pylist()
    for title, is_hard in ((HARD_TITLE, True), (SUSPECT_TITLE, False)):
        part = [row for row in rows if row["hard"] == is_hard]
        if part:
            sections[title] = part
    return sections


def _lines(rows: Sequence[object]) -> int:
    """Lines of COLUMNS images, the last one not always full."""
    return math.ceil(len(rows) / COLUMNS)


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
    predicted = row["pred"]
    if predicted == row["label"]:
        canvas.text(box.under(28), "predicted correctly", 12, ink=FAINT)
        return
    other = classes[predicted]
    _put_line(canvas, box.under(28), f"→ {other}", row["prob_pred"], ink)


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
        of_class = by_class.setdefault(row["label"], [])
        of_class.append(row)
    columns = max([TAIL_COLUMNS, *map(len, by_class.values())])
    width = TAIL_LEFT + columns * TAIL_PITCH + MARGIN
    height = MARGIN + len(by_class) * TAIL_PITCH
    canvas, top = _titled(width, height, title)
    y = top + MARGIN
    for label, rows in by_class.items():
        first = Box(TAIL_LEFT, y, SIDE)
        y += TAIL_PITCH
        name = str(rows[0]["class_name"])
        _put_class(canvas, first, name, counts[label])
        for column, row in enumerate(rows):
            x = TAIL_LEFT + column * TAIL_PITCH
            box = Box(x, first.y, SIDE)
            _put_image(canvas, box, images[row["sample_id"]])
    return canvas.png(note)


def _put_class(canvas: Canvas, first: Box, name: str, count: int) -> None:
    """Writes a class's name, cut if it is long, and its number of images left of the first one."""
    words = fitted(name, font_of(13), first.x - 14 - MARGIN)
    upper = first.beside(14, down=-9)
    canvas.text(upper, words, 13, anchor="rm")
    lower = first.beside(14, down=9)
    number = f"{count} for training"
    canvas.text(lower, number, 12, ink=FAINT, anchor="rm")


def _images(samples: pa.Table) -> dict[str, dict[str, Any]]:
    """`image` by sample_id."""
    rows = samples.to_pylist()
    return {row["sample_id"]: row["image"] for row in rows}


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
        data = image_bytes(image)
        canvas.paste(thumbnail(data, SIDE), box.at)
    except (OSError, ImageError):
        canvas.frame(box, FAINT)


def _put_line(canvas: Canvas, at: Point, name: str, probability: float, ink: Colour) -> None:
    """Writes a name, cut if it is long, and a probability."""
    font = font_of(12)
    end = f" {probability:.3f}"
    room = COLUMN - 6 - font.getlength(end)
    words = fitted(name, font, room) + end
    canvas.text(at, words, 12, ink=ink)
