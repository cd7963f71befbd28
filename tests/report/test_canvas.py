"""What is put on a sheet is where it was put."""

import io

import numpy as np
import pytest
from PIL import Image

from discl_ray.core.images import encode_image
from discl_ray.errors import ImageError
from discl_ray.report.canvas import (
    INK,
    PAPER,
    RED,
    Box,
    Canvas,
    fitted,
    font_of,
    png_of,
    thumbnail,
    with_note,
)
from tests.support.sheets import encoded

BLUE = (0, 0, 200)


def pixels(canvas):
    return np.asarray(canvas.image)


def where(canvas, colour):
    """The rows and columns in which a canvas has a colour: first, last; first, last."""
    rows, columns = np.nonzero((pixels(canvas) == colour).all(axis=2))
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_a_box_knows_its_points():
    box = Box(10, 20, 8)
    assert box.at == (10, 20)
    assert box.center == (14, 24)
    assert box.corners == (10, 20, 17, 27)
    assert box.above(3) == (14, 3)
    assert box.beside(5, down=2) == (5, 26)
    assert box.under(4) == (10, 32)


def test_a_canvas_is_paper_until_something_is_put_on_it():
    canvas = Canvas(40, 30)
    assert pixels(canvas).shape == (30, 40, 3)
    assert (pixels(canvas) == PAPER).all()
    canvas.paste(Image.new("RGB", (4, 6), BLUE), (10, 20))
    assert where(canvas, BLUE) == (20, 25, 10, 13)


def test_frames_fills_and_crosses_stay_inside_their_box():
    box = Box(10, 5, 12)
    framed, filled, crossed = Canvas(40, 30), Canvas(40, 30), Canvas(40, 30)
    framed.frame(box, BLUE)
    filled.fill(box, BLUE)
    crossed.cross_out(box)
    assert where(framed, BLUE) == where(filled, BLUE) == (5, 16, 10, 21)
    assert (pixels(framed)[6:16, 11:21] == PAPER).all()
    assert (pixels(filled)[5:17, 10:22] == BLUE).all()
    assert (pixels(crossed)[11, 16] == RED).all()  # the middle
    assert (pixels(crossed)[8, 18] == PAPER).all()  # beside the line


@pytest.mark.parametrize(
    ("anchor", "columns"), [("lm", (50, 99)), ("rm", (0, 49)), ("mm", (20, 79))]
)
def test_words_start_at_end_at_or_surround_their_point(anchor, columns):
    canvas = Canvas(100, 40)
    canvas.text((50, 20), "III", 14, anchor=anchor)
    _, inked = np.nonzero((pixels(canvas) != PAPER).any(axis=2))
    assert columns[0] <= inked.min() <= inked.max() <= columns[1]


def test_a_note_is_red_above_the_sheet_and_leaves_the_sheet_as_it_was():
    sheet = Image.new("RGB", (200, 50), BLUE)
    noted = np.asarray(with_note(sheet, "a note that is too long for a single line of this sheet"))
    above = noted[:-50]
    assert (noted[-50:] == BLUE).all()
    assert (above == RED).all(axis=2).any()
    assert above.shape[0] == 8 + 18 * 3
    assert with_note(sheet, "") is sheet


def test_pngs_are_what_was_drawn_and_equal_for_equal_sheets():
    canvas = Canvas(30, 20)
    canvas.fill(Box(0, 0, 4), BLUE)
    again = np.asarray(Image.open(io.BytesIO(canvas.png())))
    assert np.array_equal(again, pixels(canvas))
    assert canvas.png() == png_of(canvas.image)
    assert canvas.png("a note") != canvas.png()


def test_a_thumbnail_keeps_proportions_and_small_images_keep_their_pixels():
    wide = np.asarray(thumbnail(encode_image(np.zeros((8, 16, 3), np.uint8), "png"), 32))
    dark = wide.sum(axis=2) == 0
    assert wide.shape == (32, 32, 3)
    assert dark[8:24].all()
    assert (wide[:8] == PAPER).all()
    checks = np.indices((4, 4)).sum(axis=0) % 2 * 255
    small = np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)
    large = np.asarray(thumbnail(encode_image(small, "png"), 16))
    assert np.array_equal(large, small.repeat(4, axis=0).repeat(4, axis=1))
    with pytest.raises(ImageError):
        thumbnail(b"broken", 32)
    assert thumbnail(encoded(BLUE), 32).getpixel((0, 0)) == BLUE


def test_long_words_are_cut_to_a_width():
    font = font_of(13)
    assert font is font_of(13)
    assert fitted("otter", font, 500) == "otter"
    cut = fitted("white-lipped peccary", font, 60)
    assert cut.endswith("…")
    assert "white-lipped peccary".startswith(cut[:-1])
    assert font.getlength(cut) <= 60
    assert INK != PAPER
