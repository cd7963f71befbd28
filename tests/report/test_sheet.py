"""The contact sheet shows each image in the cell of its sample and its λ."""

import io

import numpy as np
import pytest
from PIL import Image

from discl_ray.report.canvas import PAPER, RED
from discl_ray.report.sheet import (
    BOTTOM,
    CELL,
    GAP,
    LEFT,
    PITCH,
    TOP,
    column_names,
    contact_sheet,
    made_from,
    pick_shown,
)
from tests.support.sheets import samples, spectrum

GREEN, BLUE, GREY, BLACK = (0, 200, 0), (0, 0, 200), (90, 90, 90), (0, 0, 0)


def drawn(*arguments, **options):
    return np.asarray(Image.open(io.BytesIO(contact_sheet(*arguments, **options))))


def cell(sheet, line, column):
    """Pixels of a cell, without its edge and its diagonal's ends."""
    y, x = TOP + line * PITCH, LEFT + column * PITCH
    return sheet[y : y + CELL, x : x + CELL]


def filled(sheet, line, column):
    """The colour of a cell in a place that no crossing touches."""
    return tuple(cell(sheet, line, column)[10, 40].tolist())


@pytest.fixture
def sheet():
    made = spectrum(
        [
            {"sample_id": "a", "lam_pct": 0, "colour": GREEN},
            {"sample_id": "a", "lam_pct": 50, "colour": BLUE, "kept": False, "reason": "rank"},
            {"sample_id": "a", "lam_pct": 0, "colour": BLACK, "replica": 1},
            {"sample_id": "a", "lam_pct": 50, "colour": BLACK, "role": "probe"},
            {"sample_id": "b", "lam_pct": 0, "colour": BLACK, "kept": False, "reason": "attempt"},
            {"sample_id": "b", "lam_pct": 0, "colour": GREY, "attempt": 1},
            {"sample_id": "b", "lam_pct": 50, "colour": None, "kept": False, "reason": "error"},
        ]
    )
    real = [
        {"sample_id": "a", "label": 1, "colour": GREY},
        {"sample_id": "b", "label": 0, "colour": None},
    ]
    return drawn(made, samples(real))


def test_a_sheet_has_a_row_per_sample_and_a_column_per_lam_and_the_real_image(sheet):
    assert sheet.shape == (TOP + 2 * PITCH + BOTTOM, LEFT + 3 * PITCH + GAP, 3)
    assert column_names([0, 50]) == ["λ = 0", "λ = 0.5", "real"]


def test_images_are_in_the_cell_of_their_sample_and_lam(sheet):
    b, a = 0, 1  # ordered by class
    assert filled(sheet, a, 0) == GREEN
    assert filled(sheet, a, 1) == BLUE
    assert filled(sheet, a, 2) == GREY  # the real one
    assert filled(sheet, b, 0) == GREY  # the attempt that was kept


def test_what_is_missing_or_unreadable_leaves_its_cell_empty(sheet):
    assert (cell(sheet, 0, 1) == PAPER).all()
    assert (cell(sheet, 0, 2) == PAPER).all()


def test_only_rejected_images_are_crossed_out(sheet):
    crossed = {
        (line, column)
        for line, column in np.ndindex(2, 3)
        if (cell(sheet, line, column) == RED).all(axis=2).any()
    }
    assert crossed == {(1, 1)}


def test_a_note_is_above_the_sheet():
    made, real = (
        spectrum([{"lam_pct": 0, "colour": GREEN}]),
        samples([{"sample_id": "s", "colour": GREY}]),
    )
    plain, noted = drawn(made, real), drawn(made, real, note="plumbing test")
    assert np.array_equal(noted[-len(plain) :], plain)
    assert (noted[: -len(plain)] == RED).all(axis=2).any()


def test_training_images_are_picked_evenly_over_the_classes():
    rows = [{"sample_id": f"{i}", "label": i % 3, "colour": GREY} for i in range(30)]
    rows.append({"sample_id": "val", "label": 0, "split": "val", "colour": GREY})
    picked = pick_shown(samples(rows), 6)
    assert picked["label"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert "val" not in picked["sample_id"].to_pylist()
    assert pick_shown(samples(rows[-1:]), 6).num_rows == 0


def test_rows_made_from_some_real_images_are_found():
    rows = [{"sample_id": name, "lam_pct": 0, "colour": GREEN} for name in "aabc"]
    rows.append({"sample_id": "a", "lam_pct": 0, "colour": GREEN, "replica": 1})
    rows.append({"sample_id": "a", "lam_pct": 0, "colour": GREEN, "role": "probe"})
    real = samples([{"sample_id": name, "colour": GREY} for name in "ac"])
    assert made_from(spectrum(rows), real)["sample_id"].to_pylist() == ["a", "a", "c"]
