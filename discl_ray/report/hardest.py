# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""Hard samples to look at: a table by class, a sheet of the hardest images or the rarest classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.core.sources import image_bytes
from discl_ray.errors import ImageError
from discl_ray.plan.hardness import class_counts
from discl_ray.report.canvas import (
    FAINT,
    INK,
    NOTE_LETTER,
    RED,
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
        name = self.name if len(self.name) <= NAME else self.name[: NAME - 1] + "…"
        return f"  {name:<{NAME}} {self.train:>8} {self.hard:>8} {self.suspect:>8}"


def class_table(judged: pa.Table) -> str:
    """Training images, hard ones and suspects by class, from HARDNESS.

    A line per class; of many classes only those with the most hard images.
    """
    counts = _counts(judged)
    shown, rest = counts, list[_Count]()
    if len(counts) > CLASSES:
        by_hard = sorted(counts, key=lambda of_class: -of_class.hard)
        shown, rest = by_hard[:CLASSES], by_hard[CLASSES:]
    lines = [f"  {'class':<{NAME}} {'train':>8} {'hard':>8} {'suspect':>8}"]
    lines += map(str, shown)
    if rest:
        lines.append(str(_total(f"{len(rest)} other classes", rest)))
    if counts:
        lines.append(str(_total("all", counts)))
    return "\n".join(lines)


def _counts(judged: pa.Table) -> list[_Count]:
    """Counts by class, in the order of the labels."""
    train = judged.filter(pc.equal(judged["split"], "train"))
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
        rows = judged.filter(pc.and_(pc.equal(judged["split"], split), judged["pred"].is_valid()))
        if rows.num_rows:
            share = pc.mean(pc.equal(rows["pred"], rows["label"])).as_py()
            shares.append(f"{100 * share:.1f} % of {split}")
    return f"the classifier agrees with the labels of {', '.join(shares)}"


def hardest_rows(judged: pa.Table) -> pa.Table:
    """The HARDNESS rows of a sheet: the hardest training images, then the surest suspects.

    A suspect is sure if the classifier gives another class a high probability.
    """
    train = judged.filter(pc.equal(judged["split"], "train"))
    hard = train.filter(train["hard"]).sort_by("rank").slice(0, HARD_ROWS * COLUMNS)
    suspects = train.filter(pc.and_not(train["suspect"], train["hard"]))
    suspects = suspects.sort_by([("prob_pred", "descending"), ("rank", "ascending")])
    return pa.concat_tables([hard, suspects.slice(0, SUSPECT_ROWS * COLUMNS)])


def tail_rows(judged: pa.Table) -> pa.Table:
    """The HARDNESS rows of a sheet of rare classes: a row's images of each of the rarest, in order."""
    hard = judged.filter(pc.and_(pc.equal(judged["split"], "train"), judged["hard"]))
    hard = hard.sort_by("rank")
    label = hard["label"].to_numpy()
    _, first = np.unique(label, return_index=True)
    rarest = label[np.sort(first)][:TAIL_ROWS]
    rows = [np.flatnonzero(label == of_class)[:COLUMNS] for of_class in rarest]
    return hard.take(pa.array(np.concatenate([np.empty(0, np.int64), *rows])))


def hardest_sheet(
    shown: pa.Table, samples: pa.Table, classes: Sequence[str], *, title: str, note: str = ""
) -> bytes:
    """A PNG of `hardest_rows`: class, its probability, and the class that was predicted instead.

    Suspects are framed in red. `samples` are the same rows of SAMPLES with their images. A `note`
    is written in red above the sheet.
    """
    images = _images(samples)
    sections = _sections(shown)
    height = sum(TOP + _lines(rows) * ROW for rows in sections.values())
    canvas, top = _titled(2 * MARGIN + COLUMNS * COLUMN, height, title)
    for words, rows in sections.items():
        canvas.text((MARGIN, top + TOP // 2), words, 14)
        for number, row in enumerate(rows):
            line, column = divmod(number, COLUMNS)
            at = MARGIN + column * COLUMN, top + TOP + line * ROW
            _put_image(canvas, at, images[row["sample_id"]])
            _put_prediction(canvas, at, row, classes)
        top += TOP + _lines(rows) * ROW
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
    canvas: Canvas, at: Point, row: Mapping[str, Any], classes: Sequence[str]
) -> None:
    """Writes the class and the predicted class under an image; a suspect gets a red frame."""
    ink = INK
    if row["suspect"]:
        ink = RED
        canvas.square(at, SIDE, outline=RED, width=3)
    x, y = at[0], at[1] + SIDE
    _put_line(canvas, (x, y + 12), str(row["class_name"]), f" {row['prob_true']:.3f}", ink)
    if row["pred"] == row["label"]:
        _put_line(canvas, (x, y + 28), "predicted correctly", "", FAINT)
    else:
        predicted = f"→ {classes[row['pred']]}"
        _put_line(canvas, (x, y + 28), predicted, f" {row['prob_pred']:.3f}", ink)


def tail_sheet(
    shown: pa.Table, samples: pa.Table, judged: pa.Table, *, title: str, note: str = ""
) -> bytes:
    """A PNG of `tail_rows`: a row per class, with the number of its training images from HARDNESS.

    `samples` are the same rows of SAMPLES with their images. A `note` is written in red above the
    sheet.
    """
    images, counts = _images(samples), class_counts(judged)
    by_class: dict[int, list[dict[str, Any]]] = {}
    for row in shown.to_pylist():
        by_class.setdefault(row["label"], []).append(row)
    columns = max([TAIL_COLUMNS, *map(len, by_class.values())])
    width = TAIL_LEFT + columns * TAIL_PITCH + MARGIN
    canvas, top = _titled(width, MARGIN + len(by_class) * TAIL_PITCH, title)
    for line, (label, rows) in enumerate(by_class.items()):
        y = top + MARGIN + line * TAIL_PITCH
        right = TAIL_LEFT - 14
        name = fitted(str(rows[0]["class_name"]), font_of(13), right - MARGIN)
        canvas.text((right, y + SIDE // 2 - 9), name, 13, anchor="rm")
        count = f"{counts[label]} for training"
        canvas.text((right, y + SIDE // 2 + 9), count, 12, ink=FAINT, anchor="rm")
        for column, row in enumerate(rows):
            _put_image(canvas, (TAIL_LEFT + column * TAIL_PITCH, y), images[row["sample_id"]])
    return canvas.png(note)


def _images(samples: pa.Table) -> dict[str, dict[str, Any]]:
    """`image` by sample_id."""
    ids, images = samples["sample_id"].to_pylist(), samples["image"].to_pylist()
    return dict(zip(ids, images, strict=True))


def _titled(width: int, height: int, title: str) -> tuple[Canvas, int]:
    """A sheet with a title above a space of a size in pixels, and where that space begins."""
    lines = wrap(title, width // NOTE_LETTER)
    top = MARGIN + TITLE_LINE * len(lines)
    canvas = Canvas(width, top + height)
    for number, line in enumerate(lines):
        canvas.text((MARGIN, MARGIN + 4 + TITLE_LINE * number), line, 12, ink=FAINT)
    return canvas, top


def _put_image(canvas: Canvas, at: Point, image: Mapping[str, Any]) -> None:
    """Puts an image, or an empty frame if it can no longer be read."""
    try:
        canvas.paste(thumbnail(image_bytes(image), SIDE), at)
    except (OSError, ImageError):
        canvas.square(at, SIDE, outline=FAINT)


def _put_line(canvas: Canvas, at: Point, name: str, end: str, ink: Colour) -> None:
    """Writes a line under an image; a long name is cut, its end is not."""
    room = COLUMN - 6 - font_of(12).getlength(end)
    canvas.text(at, fitted(name, font_of(12), room) + end, 12, ink=ink)
