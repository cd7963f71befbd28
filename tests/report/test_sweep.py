"""A sweep's table and its picture of every trial."""

import io

from PIL import Image

from discl_ray.report.sweep import COLOURS, sweep_figure, sweep_picture, sweep_table

TRIALS = [
    ("finished", [(1, 10.0), (2, 20.0)]),
    ("stopped", [(1, 5.0)]),
    ("failed", []),
    ("stopped", [(1, 3.0)]),
]
SWEPT = {
    "train.learning_rate": [(0.001, 3.0), (0.1, 5.0)],
    "curriculum.strategy": [("linear", 3.0), ("adaptive", 5.0), ("linear", 2.0)],
    "plan.flag": [(True, 1.0)],
    "train.batch": [(32, 2.0), (64, 3.0)],
    "more": [],
}


def figure():
    return sweep_figure(TRIALS, 0, SWEPT, metric="top-1", title="a sweep")


def test_the_table_escapes_what_would_break_it():
    table = sweep_table([{"a": "x|y", "b": "1\n2"}, {"a": "", "b": "z"}])
    assert table.splitlines() == ["| a | b |", "|---|---|", "| x\\|y | 1 2 |", "|  | z |"]


def test_every_trial_with_a_result_is_a_line_and_the_best_is_thick():
    top = figure().axes[0]
    lines = [(list(line.get_ydata()), line.get_color(), line.get_linewidth()) for line in top.lines]
    assert lines[:2] == [([5.0], COLOURS["stopped"], 1), ([3.0], COLOURS["stopped"], 1)]
    assert lines[2][0] == [10.0, 20.0]
    assert lines[2][2] > 2
    legend = [text.get_text() for text in top.get_legend().get_texts()]
    assert legend == ["stopped", "best"]
    assert (top.get_title(), top.get_ylabel()) == ("a sweep", "top-1 on val [%]")


def test_each_key_has_a_panel_with_a_dot_per_finished_trial():
    panels = {axis.get_xlabel(): axis for axis in figure().axes[1:]}
    assert list(panels) == list(SWEPT)
    dots = {key: panel.collections[0].get_offsets().tolist() for key, panel in panels.items()}
    assert dots["train.learning_rate"] == [[0.001, 3.0], [0.1, 5.0]]
    assert dots["curriculum.strategy"] == [[1, 3.0], [0, 5.0], [1, 2.0]]
    assert dots["more"] == []
    names = [text.get_text() for text in panels["curriculum.strategy"].get_xticklabels()]
    assert names == ["adaptive", "linear"]


def test_the_axis_of_widely_spread_numbers_is_logarithmic():
    panels = {axis.get_xlabel(): axis for axis in figure().axes[1:]}
    assert panels["train.learning_rate"].get_xscale() == "log"
    assert panels["train.batch"].get_xscale() == "linear"


def test_a_sweep_without_a_result_is_a_picture_too():
    png = sweep_picture([], None, {}, metric="top-1", title="nothing")
    assert Image.open(io.BytesIO(png)).format == "PNG"
