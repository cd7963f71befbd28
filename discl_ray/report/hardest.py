"""Hard samples to look at: a table by class, and a sheet of the hardest or of the rarest ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
"""Height of a line of the sheet's title."""
COLUMNS = 8
"""Images in a row."""

TAIL_LEFT = 180
"""Where images begin on a sheet of rare classes."""
TAIL_PITCH = SIDE + 12
"""From an image to the next on that sheet, across and down."""
TAIL_COLUMNS = 4
"""Columns a sheet of rare classes has at least: its title's width."""

HARD_ROWS = 4
"""Rows of hard images on a sheet, at most."""
SUSPECT_ROWS = 2
"""Rows of suspects on a sheet, at most."""
TAIL_ROWS = 14
"""Rows of a sheet of rare classes, at most: one per class."""

HARD_TITLE = "the hardest images"
SUSPECT_TITLE = (
    "suspect labels: the classifier is sure of another class; no spectrum is made of them"
)

CLASSES = 40
"""Classes that the table names; of more, those with the most hard images."""
NAME = 28
"""Letters of a class's name in the table, at most."""


Row = dict[str, Any]
"""A row of a table as plain values."""


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
    start = f"  {name:<{NAME}}"
    cells = [f"{number!s:>8}" for number in numbers]
    return " ".join([start, *cells])


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
    head = _line("class", "train", "hard", "suspect")
    lines = [head, *map(str, shown)]
    if rest:
        number = len(rest)
        name = counted(number, "other class", "other classes")
        others = _total(name, rest)
        lines.append(str(others))
    if counts:
        everything = _total("all", counts)
        lines.append(str(everything))
    return "\n".join(lines)


def _training(judged: pa.Table) -> pa.Table:
    """The training images' rows of HARDNESS."""
    return rows_where(judged, split="train")


def _counts(judged: pa.Table) -> list[_Count]:
    """Counts by class, in the order of the labels."""
    classes = _training(judged).group_by(["label", "class_name"])
    wanted = [("hard", "count"), ("hard", "sum"), ("suspect", "sum")]
    sums = classes.aggregate(wanted)
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
        has_prediction = is_valid(rows["pred"])
        predicted = rows.filter(has_prediction)
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
    train = _training(judged)
    is_hard = train["hard"]
    hard = train.filter(is_hard)
    hardest = hard.sort_by("rank").slice(0, HARD_ROWS * COLUMNS)
    only_suspect = both(train["suspect"], negate(is_hard))
    suspects = train.filter(only_suspect)
    by_sureness = [("prob_pred", "descending"), ("rank", "ascending")]
    surest = suspects.sort_by(by_sureness).slice(0, SUSPECT_ROWS * COLUMNS)
    return pa.concat_tables([hardest, surest])


def tail_rows(judged: pa.Table) -> pa.Table:
    """The HARDNESS rows of a sheet of rare classes: up to COLUMNS of each of the rarest."""
    hard = rows_where(judged, split="train", hard=True)
    hard = hard.sort_by("rank")
    label = hard["label"].to_numpy()
    _, first = np.unique(label, return_index=True)
    # rare classes come first in the order of HARDNESS
    places = np.sort(first)
    in_order = label[places]
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
    width = 2 * MARGIN + COLUMNS * COLUMN
    height = sum(section.height for section in sections)
    canvas, top = _titled(width, height, title)
    for section in sections:
        middle = top + TOP // 2
        canvas.text((MARGIN, middle), section.title, 14)
        first = top + TOP
        for number, row in enumerate(section.rows):
            box = _box(number, first)
            image = images[row["sample_id"]]
            _put_image(canvas, box, image)
            _put_prediction(canvas, box, row, classes)
        top += section.height
    return canvas.png(note)


class _Section(NamedTuple):
    """Images of a sheet that share a title."""

    title: str
    rows: list[Row]
    """Of HARDNESS, one per image."""

    @property
    def height(self) -> int:
        """Height of the title and of the lines of images, the last one not always full."""
        lines = math.ceil(len(self.rows) / COLUMNS)
        return TOP + lines * ROW


def _box(number: int, top: int) -> Box:
    """Where an image is, by its number in its section; `top` is where the section's first is."""
    line, column = divmod(number, COLUMNS)
    x = MARGIN + column * COLUMN
    y = top + line * ROW
    return Box(x, y, SIDE)


def _sections(shown: pa.Table) -> list[_Section]:
    """The hard images and the suspects; a section without rows is left out."""
    rows = shown.to_pylist()
    hard = [row for row in rows if row["hard"]]
    suspect = [row for row in rows if not row["hard"]]
    sections = [_Section(HARD_TITLE, hard), _Section(SUSPECT_TITLE, suspect)]
    return [section for section in sections if section.rows]


def _put_prediction(canvas: Canvas, box: Box, row: Row, classes: Sequence[str]) -> None:
    """Writes the class and the predicted class under an image; a suspect gets a red frame."""
    ink = INK
    if row["suspect"]:
        ink = RED
        canvas.frame(box, RED, width=3)
    name = str(row["class_name"])
    first = box.under(12)
    _put_line(canvas, first, name, row["prob_true"], ink)
    predicted = row["pred"]
    second = box.under(28)
    if predicted == row["label"]:
        canvas.text(second, "predicted correctly", 12, ink=FAINT)
        return
    other = classes[predicted]
    _put_line(canvas, second, f"→ {other}", row["prob_pred"], ink)


def tail_sheet(
    shown: pa.Table, samples: pa.Table, judged: pa.Table, *, title: str, note: str = ""
) -> bytes:
    """A PNG of `tail_rows`: a row per class, with the number of its training images from HARDNESS.

    `samples` are the same rows of SAMPLES with their images. A `note` is written in red above the
    sheet.
    """
    images = _images(samples)
    counts = class_counts(judged)
    by_class: dict[int, list[Row]] = {}
    for row in shown.to_pylist():
        of_class = by_class.setdefault(row["label"], [])
        of_class.append(row)
    numbers = [len(rows) for rows in by_class.values()]
    columns = max([TAIL_COLUMNS, *numbers])
    images_width = columns * TAIL_PITCH
    width = TAIL_LEFT + images_width + MARGIN
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
            image = images[row["sample_id"]]
            _put_image(canvas, box, image)
    return canvas.png(note)


def _put_class(canvas: Canvas, first: Box, name: str, count: int) -> None:
    """Writes a class's name, cut if it is long, and its number of images left of the first one."""
    room = first.x - 14 - MARGIN
    words = fitted(name, font_of(13), room)
    upper = first.beside(14, down=-9)
    canvas.text(upper, words, 13, anchor="rm")
    lower = first.beside(14, down=9)
    number = f"{count} for training"
    canvas.text(lower, number, 12, ink=FAINT, anchor="rm")


def _images(samples: pa.Table) -> dict[str, Row]:
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
        start = MARGIN, y
        canvas.text(start, line, 12, ink=FAINT)
    return canvas, top


def _put_image(canvas: Canvas, box: Box, image: Row) -> None:
    """Puts an image into its box, or an empty frame if it can no longer be read."""
    try:
        data = image_bytes(image)
        small = thumbnail(data, SIDE)
        canvas.paste(small, box.at)
    except (OSError, ImageError):
        canvas.frame(box, FAINT)


def _put_line(canvas: Canvas, at: Point, name: str, probability: float, ink: Colour) -> None:
    """Writes a name, cut if it is long, and a probability."""
    font = font_of(12)
    end = f" {probability:.3f}"
    room = COLUMN - 6 - font.getlength(end)
    start = fitted(name, font, room)
    canvas.text(at, start + end, 12, ink=ink)
