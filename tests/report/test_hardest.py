"""Hard samples as a table, and as sheets of the hardest images and of the rarest classes."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from discl_ray.plan.hardness import HARDNESS
from discl_ray.report import hardest
from discl_ray.report.canvas import FAINT, RED
from discl_ray.report.hardest import (
    COLUMN,
    COLUMNS,
    MARGIN,
    ROW,
    SIDE,
    TAIL_LEFT,
    TAIL_PITCH,
    TITLE_LINE,
    TOP,
    agreement,
    class_table,
    hardest_rows,
    hardest_sheet,
    tail_rows,
    tail_sheet,
)
from tests.support.sheets import samples

CLASSES = ["ant", "bee", "cat"]


def judged(rows):
    """HARDNESS of dicts that name what matters."""
    plain = {"split": "train", "hard": True, "suspect": False, "prob_true": 0.1, "prob_pred": 0.8}
    filled = []
    for number, row in enumerate(rows):
        label = row.get("label", 0)
        numbered = {"sample_id": f"{number}", "rank": number, "label": label, "pred": label}
        named = {"class_name": CLASSES[label] if label < 3 else f"class {label}"}
        filled.append({**plain, **numbered, **named, **row})
    return pa.Table.from_pylist(filled, schema=HARDNESS)


def shade(number):
    return (number, 100, 200)


def images_of(shown):
    ids = shown["sample_id"].to_pylist()
    return samples([{"sample_id": name, "colour": shade(int(name))} for name in ids])


def drawn(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_table_counts_training_images_by_class_and_in_all():
    table = class_table(
        judged(
            [
                {"label": 1},
                {"label": 1, "hard": False, "suspect": True},
                {"label": 0, "hard": False},
                {"label": 0, "split": "val"},
            ]
        )
    )
    rows = [line.split() for line in table.splitlines()]
    assert rows == [
        ["class", "train", "hard", "suspect"],
        ["ant", "1", "0", "0"],
        ["bee", "2", "1", "1"],
        ["all", "3", "1", "1"],
    ]


def test_of_many_classes_those_with_the_most_hard_images_are_named_and_the_others_counted():
    rows = [{"label": label, "hard": label == 44} for label in range(50)]
    lines = class_table(judged(rows)).splitlines()
    assert len(lines) == 1 + hardest.CLASSES + 2
    assert lines[1].split() == ["class", "44", "1", "1", "0"]
    assert lines[-2].split() == ["10", "other", "classes", "10", "0", "0"]
    assert lines[-1].split() == ["all", "50", "1", "0"]


def test_agreement_is_told_by_split_and_without_what_was_not_predicted():
    table = judged(
        [{"pred": 0}, {"pred": 1}, {"pred": None}, {"split": "val", "pred": 0}, {"split": "test"}]
    )
    expected = "the classifier agrees with the labels of 50.0 % of train, 100.0 % of val"
    assert agreement(table) == expected


def test_the_hardest_come_by_rank_then_the_suspects_the_classifier_is_surest_of():
    table = judged(
        [
            {"rank": 2},
            {"rank": 1},
            {"hard": False, "suspect": True, "prob_pred": 0.6},
            {"hard": False, "suspect": True, "prob_pred": 0.9},
            {"hard": False},
            {"split": "val"},
        ]
    )
    assert hardest_rows(table)["sample_id"].to_pylist() == ["1", "0", "3", "2"]
    many = judged([{} for _ in range(100)])
    assert hardest_rows(many).num_rows == hardest.HARD_ROWS * COLUMNS


def test_the_rarest_classes_come_first_with_at_most_a_row_of_images():
    table = judged([{"label": 2}, *({"label": 1} for _ in range(20)), {"label": 0, "hard": False}])
    assert tail_rows(table)["label"].to_pylist() == [2] + [1] * COLUMNS
    assert tail_rows(table.slice(0, 0)).num_rows == 0


def test_a_sheet_of_the_hardest_shows_each_image_and_frames_suspects_in_red():
    table = judged(
        [*({"label": 1, "pred": 2} for _ in range(9)), {"hard": False, "suspect": True, "pred": 1}]
    )
    shown = hardest_rows(table)
    sheet = drawn(hardest_sheet(shown, images_of(shown), CLASSES, title="title"))
    top = MARGIN + TITLE_LINE
    assert sheet.shape == (top + 2 * TOP + 3 * ROW, 2 * MARGIN + COLUMNS * COLUMN, 3)
    for number in range(9):
        line, column = divmod(number, COLUMNS)
        y, x = top + TOP + line * ROW, MARGIN + column * COLUMN
        assert (sheet[y : y + SIDE, x : x + SIDE] == shade(number)).all()
    y = top + TOP + 2 * ROW + TOP
    suspect = sheet[y : y + SIDE, MARGIN : MARGIN + SIDE]
    assert (suspect[0] == RED).all()
    assert (suspect[5:-5, 5:-5] == shade(9)).all()


def test_what_was_predicted_correctly_is_said_in_faint_words():
    right, wrong = judged([{"label": 1, "pred": 1}]), judged([{"label": 1, "pred": 2}])
    top = MARGIN + TITLE_LINE + TOP + SIDE + 20
    strips = []
    for table in (right, wrong):
        sheet = drawn(hardest_sheet(table, images_of(table), CLASSES, title="title"))
        strips.append(sheet[top : top + 16, MARGIN : MARGIN + COLUMN])
    assert (strips[0] == FAINT).all(axis=2).any()
    assert not (strips[1] == FAINT).all(axis=2).any()


def test_a_sheet_of_rare_classes_has_a_row_per_class():
    table = judged([{"label": 2}, {"label": 1}, {"label": 1}])
    shown = tail_rows(table)
    sheet = drawn(tail_sheet(shown, images_of(shown), table, title="title"))
    top = MARGIN + TITLE_LINE
    assert sheet.shape[0] == top + MARGIN + 2 * TAIL_PITCH
    for line, column, number in ((0, 0, 0), (1, 0, 1), (1, 1, 2)):
        y, x = top + MARGIN + line * TAIL_PITCH, TAIL_LEFT + column * TAIL_PITCH
        assert (sheet[y : y + SIDE, x : x + SIDE] == shade(number)).all()


@pytest.mark.parametrize("sheet_of", ["hardest", "tail"])
def test_an_image_that_cannot_be_read_is_an_empty_frame_and_a_note_is_red(sheet_of):
    table = judged([{"label": 1}])
    broken = samples([{"sample_id": "0", "colour": None}])
    if sheet_of == "hardest":
        png = hardest_sheet(table, broken, CLASSES, title="title", note="plumbing test")
    else:
        png = tail_sheet(table, broken, table, title="title", note="plumbing test")
    sheet = drawn(png)
    assert (sheet == FAINT).all(axis=2).any(axis=1).any()
    assert (sheet[:30] == RED).all(axis=2).any()
