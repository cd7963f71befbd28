"""A comparison as Markdown and as pictures of its intervals."""

import io

import pytest
from PIL import Image

from discl_ray.experiments.statistics import Interval
from discl_ray.report.comparison import (
    column_name,
    contrasts_figure,
    gap_figure,
    gap_picture,
    markdown,
    picture,
)

COLUMNS = (("macro_f1", "ood"), ("top1", "few"))
NOTHING = Interval(float("nan"), float("nan"), float("nan"))
FIRST, SECOND = Interval(1.0, -0.5, 2.5), Interval(-3.0, -4.0, -2.0)
CONTRASTS = {
    ("B", "A", COLUMNS[0]): FIRST,
    ("B", "A", COLUMNS[1]): FIRST,
    ("C", "A", COLUMNS[0]): SECOND,
    ("C", "A", COLUMNS[1]): NOTHING,
}


def test_columns_have_names_people_know():
    assert [column_name(column) for column in COLUMNS] == ["macro F1, OOD", "few"]


def test_the_tables_keep_their_order_and_the_first_contrast_is_bold():
    means = {("A", column): FIRST for column in COLUMNS}
    text = markdown(means, CONTRASTS, COLUMNS, what="test", seen={"A": "42"})
    assert text.splitlines() == [
        "| paired difference on test, mean [95 % interval] | macro F1, OOD | few |",
        "|---|---|---|",
        "| **B − A** | +1.0 [-0.5, +2.5] | +1.0 [-0.5, +2.5] |",
        "| C − A | -3.0 [-4.0, -2.0] | – |",
        "",
        "| mean over seeds on test [95 % interval] | macro F1, OOD | few | synthetic seen |",
        "|---|---|---|---|",
        "| A | 1.0 [-0.5, 2.5] | 1.0 [-0.5, 2.5] | 42 |",
    ]


def intervals(axis):
    """(low, high, y) of the intervals that are drawn."""
    lines = [(*line.get_xdata(), *line.get_ydata()) for line in axis.lines if line.get_lw() == 1.6]
    return [(low, high, y) for low, high, y, _ in lines]


def test_a_picture_has_a_panel_per_column_and_a_line_per_contrast_that_was_measured():
    figure = contrasts_figure(CONTRASTS, COLUMNS, title="the title")
    first, second = figure.axes
    assert intervals(first) == [(-0.5, 2.5, 2), (-4.0, -2.0, 1)]
    assert intervals(second) == [(-0.5, 2.5, 2)]
    assert [axis.get_title() for axis in figure.axes] == ["macro F1, OOD", "few"]
    names = dict(zip(first.get_yticks(), first.get_yticklabels(), strict=True))
    assert {y: label.get_text() for y, label in names.items()} == {2: "B − A", 1: "C − A"}
    assert figure.get_suptitle() == "the title"


def test_gains_are_drawn_by_gap_with_their_intervals():
    values = {
        (gap, row, COLUMNS[0]): value
        for gap, value in (("none", FIRST), ("large", SECOND))
        for row in "AB"
    }
    figure = gap_figure(values, ["none", "large"], COLUMNS[:1], title="the title")
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["none", "large"]
    handles, labels = axis.get_legend_handles_labels()
    assert labels == ["A", "B"]
    for container in handles:
        line, _, (bars,) = container
        assert list(line.get_ydata()) == [1.0, -3.0]
        assert line.get_xdata() == pytest.approx([0, 1], abs=0.1)
        heights = [segment[:, 1].tolist() for segment in bars.get_segments()]
        assert heights == [[-0.5, 2.5], [-4.0, -2.0]]


def test_both_are_pngs():
    values = {("none", "A", COLUMNS[0]): FIRST}
    for png in (
        picture(CONTRASTS, COLUMNS, title="t"),
        gap_picture(values, ["none"], COLUMNS[:1], title="t"),
    ):
        assert Image.open(io.BytesIO(png)).width > 300
