# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""The contact sheet of a spectrum: rows are real images, columns λ from text-typical to the real one, rejects crossed out."""

from __future__ import annotations

import io
from contextlib import suppress
from textwrap import wrap

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont, ImageOps

from discl_ray.core.images import LARGEST, decode_image
from discl_ray.core.lam import pct_to_lam
from discl_ray.core.sources import image_bytes
from discl_ray.errors import ImageError
from discl_ray.spectrum.filter import KEPT

CELL, GAP, LEFT, TOP = 72, 4, 92, 34
RED = (200, 30, 40)
MAX_ROWS = 14
PAPER, INK, FAINT = (250, 249, 246), (40, 40, 40), (120, 120, 120)


def contact_sheet(
    spectrum: pa.Table, sources: pa.Table, *, max_rows: int = MAX_ROWS, note: str = ""
) -> bytes:
    """A PNG of up to `max_rows` real training images, their first replica at every λ, and the real image last.

    `spectrum` needs images and verdicts, `sources` is SAMPLES; real images are drawn evenly over the classes. A `note` stands in
    red above it.
    """
    levels = sorted(set(spectrum["lam_pct"].to_pylist()))
    cells: dict[tuple[str, int], dict[str, object]] = {}
    for row in spectrum.select(
        ["sample_id", "lam_pct", "replica", "role", "image", "kept", "reason"]
    ).to_pylist():
        key = row["sample_id"], row["lam_pct"]
        if (
            row["role"] == "train" and row["replica"] == 0 and (row["kept"] or key not in cells)
        ):  # the attempt that was kept
            cells[row["sample_id"], row["lam_pct"]] = row
    shown = pick_shown(sources, max_rows).to_pylist()
    width = LEFT + (len(levels) + 1) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, TOP + len(shown) * (CELL + GAP) + 22), PAPER)
    draw, font = ImageDraw.Draw(sheet), font_of(13)
    for column, name in enumerate([*(f"λ = {pct_to_lam(p):g}" for p in levels), "real"]):
        draw.text(
            (LEFT + column * (CELL + GAP) + CELL // 2, TOP // 2), name, INK, font=font, anchor="mm"
        )
    for line, sample in enumerate(shown):
        y = TOP + line * (CELL + GAP)
        draw.text(
            (LEFT - 10, y + CELL // 2),
            fitted(str(sample["class_name"]), font, LEFT - 16),
            INK,
            font=font,
            anchor="rm",
        )
        for column, lam_pct in enumerate(levels):
            cell = cells.get((sample["sample_id"], lam_pct))
            if cell is None or cell["image"]["bytes"] is None:  # pyright: ignore
                continue
            x = LEFT + column * (CELL + GAP)
            sheet.paste(thumbnail(cell["image"]["bytes"]), (x, y))  # pyright: ignore
            if cell["reason"] != KEPT:
                draw.rectangle((x, y, x + CELL - 1, y + CELL - 1), outline=RED, width=3)
                draw.line((x, y, x + CELL - 1, y + CELL - 1), RED, width=3)
        with suppress(OSError, ImageError):  # its place stays empty
            sheet.paste(
                thumbnail(image_bytes(sample["image"])), (LEFT + len(levels) * (CELL + GAP), y)
            )
    draw.text(
        (LEFT, sheet.height - 11),
        "crossed out: rejected by the filter",
        FAINT,
        font=font_of(11),
        anchor="lm",
    )
    return png_of(with_note(sheet, note))


def pick_shown(sources: pa.Table, max_rows: int = MAX_ROWS) -> pa.Table:
    """Up to `max_rows` training images of SAMPLES, drawn evenly over the classes, by class."""
    train = np.flatnonzero(pc.equal(sources["split"], "train").to_numpy())
    order = train[np.argsort(sources["label"].to_numpy()[train], kind="stable")]
    count = min(len(order), max_rows)
    places = [int(order[i * len(order) // count]) for i in range(count)]
    return pa.concat_tables([sources.slice(0, 0), *(sources.slice(place, 1) for place in places)])


def made_from(spectrum: pa.Table, sources: pa.Table) -> pa.Table:
    """Rows of a spectrum that were made from some real images (SAMPLES)."""
    return spectrum.filter(pc.is_in(spectrum["sample_id"], sources["sample_id"].combine_chunks()))


def with_note(sheet: Image.Image, note: str) -> Image.Image:
    """A sheet with a red line of words above it, wrapped to its width."""
    if not note:
        return sheet
    lines = wrap(note, max(20, sheet.width // 8))
    taller = Image.new("RGB", (sheet.width, sheet.height + 18 * len(lines) + 8), PAPER)
    taller.paste(sheet, (0, taller.height - sheet.height))
    draw = ImageDraw.Draw(taller)
    for i, line in enumerate(lines):
        draw.text((8, 14 + 18 * i), line, RED, font=font_of(13), anchor="lm")
    return taller


def png_of(sheet: Image.Image) -> bytes:
    """A picture as PNG; equal pictures give equal bytes."""
    out = io.BytesIO()
    sheet.save(out, "PNG", compress_level=6)
    return out.getvalue()


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's own font: it is always there and knows Greek."""
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def fitted(words: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Words that are at most `width` pixels wide; of longer ones the beginning."""
    if font.getlength(words) <= width:
        return words
    while words and font.getlength(words + "…") > width:
        words = words[:-1].rstrip()
    return words + "…"


def thumbnail(data: bytes, side: int = CELL) -> Image.Image:
    """Encoded bytes as a square picture in its own proportions; small images keep their pixels."""
    image = Image.fromarray(decode_image(data, limit=LARGEST))
    method = Image.Resampling.NEAREST if image.width < side else Image.Resampling.LANCZOS
    return ImageOps.pad(image, (side, side), method, color=PAPER)
