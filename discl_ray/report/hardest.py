# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""What is hard, to look at: a table by class, and a contact sheet of the hardest images or of the rarest classes."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw

from discl_ray.core.sources import image_bytes
from discl_ray.errors import ImageError
from discl_ray.plan.hardness import class_counts
from discl_ray.report.sheet import (
    FAINT,
    INK,
    PAPER,
    RED,
    fitted,
    font_of,
    png_of,
    thumbnail,
    with_note,
)

SIDE, COLUMN, ROW, TOP, MARGIN, COLUMNS = 96, 128, 156, 48, 16, 8
"""Pixels: an image, the pitch of columns and of rows, what stands above a section, the margin; and images in a row."""

HARD_ROWS, SUSPECT_ROWS, TAIL_ROWS = 4, 2, 14
"""Rows of a sheet, at the most."""

CLASSES = 40
"""Classes the table names; of more, those with the most hard images."""


def class_table(judged: pa.Table) -> str:
    """Train images, hard ones and suspects by class, from HARDNESS; a line a class, the hardest of them first if there are many."""
    train = judged.filter(pc.equal(judged["split"], "train"))
    sums = train.group_by(["label", "class_name"]).aggregate(
        [("hard", "count"), ("hard", "sum"), ("suspect", "sum")]
    )
    rows = (
        sums.sort_by("label")
        .select(["class_name", "hard_count", "hard_sum", "suspect_sum"])
        .to_pylist()
    )
    shown = rows
    if len(rows) > CLASSES:
        shown = sorted(rows, key=lambda row: -row["hard_sum"])[:CLASSES]
    lines = [f"  {'class':<28} {'train':>8} {'hard':>8} {'suspect':>8}"]
    lines += [
        _line(row["class_name"], row["hard_count"], row["hard_sum"], row["suspect_sum"])
        for row in shown
    ]
    rest = [row for row in rows if row not in shown] if len(rows) > CLASSES else []
    for words, part in ((f"{len(rest)} other classes", rest), ("all", rows)):
        if part:
            lines.append(
                _line(
                    words,
                    *(
                        sum(row[name] for row in part)
                        for name in ("hard_count", "hard_sum", "suspect_sum")
                    ),
                )
            )
    return "\n".join(lines)


def _line(name: str, train: int, hard: int, suspect: int) -> str:
    return f"  {name if len(name) <= 28 else name[:27] + '…':<28} {train:>8} {hard:>8} {suspect:>8}"


def agreement(judged: pa.Table) -> str:
    """How often the classifier is right, from HARDNESS by confidence: hardness by one that knows nothing means nothing."""
    parts = []
    for split in ("train", "val"):
        rows = judged.filter(pc.and_(pc.equal(judged["split"], split), judged["pred"].is_valid()))
        if rows.num_rows:
            parts.append(
                f"{100 * pc.mean(pc.equal(rows['pred'], rows['label'])).as_py():.1f} % of {split}"
            )
    return f"the classifier agrees with the labels of {', '.join(parts)}"


def hardest_rows(judged: pa.Table) -> pa.Table:
    """The HARDNESS rows a sheet shows: the hardest hard training images, then the suspects a classifier is surest of."""
    train = judged.filter(pc.equal(judged["split"], "train"))
    hard = train.filter(train["hard"]).sort_by("rank").slice(0, HARD_ROWS * COLUMNS)
    suspects = train.filter(pc.and_not(train["suspect"], train["hard"])).sort_by(
        [("prob_pred", "descending"), ("rank", "ascending")]
    )
    return pa.concat_tables([hard, suspects.slice(0, SUSPECT_ROWS * COLUMNS)])


def tail_rows(judged: pa.Table) -> pa.Table:
    """The HARDNESS rows a sheet of rare classes shows: of each of the rarest hard classes, up to a row's images, rarest first."""
    hard = judged.filter(pc.and_(pc.equal(judged["split"], "train"), judged["hard"])).sort_by(
        "rank"
    )
    label = hard["label"].to_numpy()
    _, first = np.unique(label, return_index=True)
    keep = [np.flatnonzero(label == c)[:COLUMNS] for c in label[np.sort(first)][:TAIL_ROWS]]
    return hard.take(pa.array(np.concatenate([np.empty(0, np.int64), *keep])))


def hardest_sheet(
    shown: pa.Table, samples: pa.Table, classes: Sequence[str], *, title: str, note: str = ""
) -> bytes:
    """A PNG of `hardest_rows`: class, its probability, and what the classifier says instead; suspects are framed in red.

    `samples` are the same rows of SAMPLES with their images. A `note` stands in red above it.
    """
    images = dict(zip(samples["sample_id"].to_pylist(), samples["image"].to_pylist(), strict=True))
    rows = shown.to_pylist()
    sections = [
        ("the hardest images", [row for row in rows if row["hard"]]),
        (
            "suspect labels: the classifier is sure of another class; no spectrum is made of them",
            [r for r in rows if not r["hard"]],
        ),
    ]
    sections = [(words, part) for words, part in sections if part]
    height = sum(TOP + -(-len(part) // COLUMNS) * ROW for _, part in sections)
    sheet, draw, top = _titled((2 * MARGIN + COLUMNS * COLUMN, height), title)
    for words, part in sections:
        draw.text((MARGIN, top + TOP // 2), words, INK, font=font_of(14), anchor="lm")
        for i, row in enumerate(part):
            x, y = MARGIN + i % COLUMNS * COLUMN, top + TOP + i // COLUMNS * ROW
            _image(sheet, draw, (x, y), images[row["sample_id"]])
            ink = RED if row["suspect"] else INK
            if row["suspect"]:
                draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=RED, width=3)
            _text(draw, (x, y + SIDE + 12), str(row["class_name"]), f" {row['prob_true']:.3f}", ink)
            if row["pred"] == row["label"]:
                _text(draw, (x, y + SIDE + 28), "none is likelier", "", FAINT)
            else:
                _text(
                    draw,
                    (x, y + SIDE + 28),
                    f"→ {classes[row['pred']]}",
                    f" {row['prob_pred']:.3f}",
                    ink,
                )
        top += TOP + -(-len(part) // COLUMNS) * ROW
    return png_of(with_note(sheet, note))


def tail_sheet(
    shown: pa.Table, samples: pa.Table, judged: pa.Table, *, title: str, note: str = ""
) -> bytes:
    """A PNG of `tail_rows`: a row a class with the number of its training images, from HARDNESS.

    `samples` are the same rows of SAMPLES with their images. A `note` stands in red above it.
    """
    images = dict(zip(samples["sample_id"].to_pylist(), samples["image"].to_pylist(), strict=True))
    counts, rows = class_counts(judged), shown.to_pylist()
    labels = list(dict.fromkeys(row["label"] for row in rows))
    left, pitch = 180, SIDE + 12
    columns = max(
        [4, *(sum(row["label"] == label for row in rows) for label in labels)]
    )  # four for the title
    sheet, draw, top = _titled(
        (left + columns * pitch + MARGIN, MARGIN + len(labels) * pitch), title
    )
    for line, label in enumerate(labels):
        part, y = [row for row in rows if row["label"] == label], top + MARGIN + line * pitch
        name = fitted(str(part[0]["class_name"]), font_of(13), left - 14 - MARGIN)
        draw.text((left - 14, y + SIDE // 2 - 9), name, INK, font=font_of(13), anchor="rm")
        draw.text(
            (left - 14, y + SIDE // 2 + 9),
            f"{counts[label]} for training",
            FAINT,
            font=font_of(12),
            anchor="rm",
        )
        for column, row in enumerate(part):
            _image(sheet, draw, (left + column * pitch, y), images[row["sample_id"]])
    return png_of(with_note(sheet, note))


def _titled(size: tuple[int, int], title: str) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """A sheet with room of a size under its title, and where the room begins."""
    lines = wrap(title, size[0] // 8)
    top = MARGIN + 16 * len(lines)
    sheet = Image.new("RGB", (size[0], top + size[1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + 4 + 16 * i), line, FAINT, font=font_of(12), anchor="lm")
    return sheet, draw, top


def _image(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int], image: dict[str, object]
) -> None:
    """An image, or an empty frame if it cannot be read any more."""
    try:
        sheet.paste(thumbnail(image_bytes(image), SIDE), place)
    except (OSError, ImageError):
        draw.rectangle((*place, place[0] + SIDE - 1, place[1] + SIDE - 1), outline=FAINT)


def _text(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    name: str,
    end: str,
    ink: tuple[int, int, int],
) -> None:
    """One line under an image; of a long name the beginning, of its end all."""
    font = font_of(12)
    draw.text(
        place,
        fitted(name, font, COLUMN - 6 - font.getlength(end)) + end,
        ink,
        font=font,
        anchor="lm",
    )
