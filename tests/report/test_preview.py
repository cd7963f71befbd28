"""A preview's sheet shows each image, and under it a mark per filter mode."""

import io

import numpy as np
import pytest
from PIL import Image

from discl_ray.report.canvas import RED
from discl_ray.report.preview import (
    BETWEEN,
    COLUMN,
    GREEN,
    LEFT,
    PALE,
    ROW,
    SIDE,
    TOP,
    WIDTH,
    preview_sheet,
)
from discl_ray.spectrum.config import FilterConfig
from tests.support.sheets import samples, spectrum

CONFIG = FilterConfig(mode="rank")
BLUE, GREY = (0, 0, 200), (90, 90, 90)


def drawn(*arguments, **options):
    return np.asarray(Image.open(io.BytesIO(preview_sheet(*arguments, **options))))


def square(sheet, source, line, column, *, replicas=2):
    y = TOP + source * (replicas * ROW + BETWEEN) + line * ROW
    x = LEFT + column * COLUMN
    return sheet[y : y + SIDE, x : x + SIDE]


def marks(sheet, line, column):
    """The strip under an image of the first source."""
    y = TOP + line * ROW + SIDE
    x = LEFT + column * COLUMN
    return sheet[y + 2 : y + 19, x : x + SIDE]


def has(part, colour):
    return bool((part == colour).all(axis=2).any())


def redness(part):
    """By how much the reddest pixel is redder than green; a cross has smoothed edges."""
    return int((part[..., 0].astype(int) - part[..., 1]).max())


@pytest.fixture
def made():
    rows = []
    for replica, colour, passes in ((0, BLUE, True), (1, None, False)):
        for lam_pct in (0, 50):
            row = {"lam_pct": lam_pct, "replica": replica, "colour": colour, "kept": passes}
            row |= {"text_rank": 1 if passes else None, "reason": "kept" if passes else "error"}
            row |= {
                "text_sim": 0.25 if passes else None,
                "error": None if passes else "out_of_memory",
            }
            rows.append(row)
    return spectrum(rows)


@pytest.fixture
def sheet(made):
    return drawn(made, samples([{"sample_id": "s", "colour": GREY}]), CONFIG)


def test_a_sheet_has_a_row_per_replica_and_a_column_per_lam_and_the_real_image(sheet):
    assert sheet.shape == (TOP + 2 * ROW + BETWEEN, max(WIDTH, LEFT + 3 * COLUMN + 8), 3)


def test_images_are_in_their_places_and_the_real_one_half_way_down(sheet):
    assert (square(sheet, 0, 0, 0) == BLUE).all()
    assert (square(sheet, 0, 0, 1) == BLUE).all()
    y, x = TOP + ROW // 2, LEFT + 2 * COLUMN
    assert (sheet[y : y + SIDE, x : x + SIDE] == GREY).all()


def test_an_image_that_is_missing_is_a_pale_square_with_its_reason(sheet):
    broken = square(sheet, 0, 1, 0)
    assert (broken[0] == PALE).all()
    assert not (broken == PALE).all()  # words


def test_the_configured_mode_has_a_full_mark_of_its_verdict(sheet):
    passes, fails = marks(sheet, 0, 0), marks(sheet, 1, 0)
    assert has(passes, GREEN)
    assert not has(fails, GREEN)
    assert redness(passes) < 120 < redness(fails)  # another mode's mark is pale


def test_a_real_image_that_cannot_be_read_is_a_pale_square(made):
    sheet = drawn(made, samples([{"sample_id": "s", "colour": None}]), CONFIG)
    y, x = TOP + ROW // 2, LEFT + 2 * COLUMN
    assert (sheet[y, x : x + SIDE] == PALE).all()


def test_the_sheet_changes_with_the_mode_and_not_by_itself(made):
    sources = samples([{"sample_id": "s", "colour": GREY}])
    first = preview_sheet(made, sources, CONFIG)
    assert first == preview_sheet(made, sources, CONFIG)
    assert first != preview_sheet(made, sources, FilterConfig(mode="absolute"))


def test_a_note_is_red_above_the_sheet(made, sheet):
    noted = drawn(made, samples([{"sample_id": "s", "colour": GREY}]), CONFIG, note="plumbing test")
    assert np.array_equal(noted[-len(sheet) :], sheet)
    assert has(noted[: -len(sheet)], RED)
