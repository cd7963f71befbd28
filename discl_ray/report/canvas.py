"""A sheet of paper to put images and words on, and the PNG it becomes."""

from __future__ import annotations

import io
from functools import cache
from textwrap import wrap
from typing import NamedTuple

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from discl_ray.core.images import LARGEST, decode_image

Colour = tuple[int, int, int]
Point = tuple[int, int]
"""Pixels from the left and from the top."""

PAPER: Colour = (250, 249, 246)
INK: Colour = (40, 40, 40)
FAINT: Colour = (120, 120, 120)
RED: Colour = (200, 30, 40)

NOTE_LINE = 18
"""Height of a line of a note, in pixels."""
NOTE_LETTER = 8
"""Width of a letter of a note or a title, in pixels, roughly."""


class Box(NamedTuple):
    """A square of a canvas, by its top left corner and its side."""

    x: int
    y: int
    side: int

    @property
    def at(self) -> Point:
        """The top left corner."""
        return self.x, self.y

    @property
    def center(self) -> Point:
        """The middle."""
        half = self.side // 2
        return self.x + half, self.y + half

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """The top left and the bottom right pixel, both inside."""
        right = self.x + self.side - 1
        bottom = self.y + self.side - 1
        return self.x, self.y, right, bottom

    def above(self, y: int) -> Point:
        """The point over the middle that is `y` from the top of the canvas."""
        middle, _ = self.center
        return middle, y

    def beside(self, distance: int, down: int = 0) -> Point:
        """The point left of the middle, and `down` below it."""
        _, middle = self.center
        return self.x - distance, middle + down

    def under(self, distance: int) -> Point:
        """The point under the bottom left corner."""
        bottom = self.y + self.side
        return self.x, bottom + distance


class Canvas:
    """An empty sheet of a size in pixels."""

    def __init__(self, width: int, height: int) -> None:
        size = width, height
        self.image = Image.new("RGB", size, PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def text(
        self, at: Point, words: str, size: int, *, ink: Colour = INK, anchor: str = "lm"
    ) -> None:
        """Writes words; `anchor` is Pillow's: "lm" starts at the point, "rm" ends there, "mm" is
        centered on it.
        """
        align = "right" if anchor.startswith("r") else "left"
        font = font_of(size)
        self._draw.text(at, words, ink, font=font, anchor=anchor, align=align)

    def paste(self, image: Image.Image, at: Point) -> None:
        """Puts an image with its top left corner at a point."""
        self.image.paste(image, at)

    def frame(self, box: Box, colour: Colour, width: int = 1) -> None:
        """Draws the edge of a box."""
        self._draw.rectangle(box.corners, outline=colour, width=width)

    def fill(self, box: Box, colour: Colour) -> None:
        """Fills a box."""
        self._draw.rectangle(box.corners, fill=colour)

    def cross_out(self, box: Box) -> None:
        """Frames a box in red and draws a line across it."""
        self.frame(box, RED, width=3)
        self._draw.line(box.corners, RED, width=3)

    def png(self, note: str = "") -> bytes:
        """The sheet as PNG, with a red note above it; equal sheets give equal bytes."""
        return png_of(with_note(self.image, note))


def with_note(sheet: Image.Image, note: str) -> Image.Image:
    """A sheet with red words above it, wrapped to its width."""
    if not note:
        return sheet
    letters = max(20, sheet.width // NOTE_LETTER)
    lines = wrap(note, letters)
    above = NOTE_LINE * len(lines) + 8
    height = above + sheet.height
    canvas = Canvas(sheet.width, height)
    canvas.paste(sheet, (0, above))
    for number, line in enumerate(lines):
        y = 14 + NOTE_LINE * number
        start = 8, y
        canvas.text(start, line, 13, ink=RED)
    return canvas.image


def png_of(sheet: Image.Image) -> bytes:
    """A picture as PNG; equal pictures give equal bytes."""
    # the level of compression is part of the bytes
    out = io.BytesIO()
    sheet.save(out, "PNG", compress_level=6)
    return out.getvalue()


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's own font, which is always installed and has Greek letters."""
    folder = f"{matplotlib.get_data_path()}/fonts/ttf"
    return ImageFont.truetype(f"{folder}/DejaVuSans.ttf", size)


def fitted(words: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Words that are at most `width` pixels wide: longer ones are cut and end in "…"."""
    if font.getlength(words) <= width:
        return words
    while words and font.getlength(words + "…") > width:
        shorter = words[:-1]
        words = shorter.rstrip()
    return words + "…"


def thumbnail(data: bytes, side: int) -> Image.Image:
    """Encoded bytes as a square picture that keeps the proportions; small images keep their pixels.

    Raises ImageError if the bytes cannot be decoded.
    """
    pixels = decode_image(data, limit=LARGEST)
    image = Image.fromarray(pixels)
    is_small = image.width < side
    method = Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS
    size = side, side
    return ImageOps.pad(image, size, method, color=PAPER)
