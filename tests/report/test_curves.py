"""Curves show every run's scores and λ by epoch."""

import io

from PIL import Image

from discl_ray.report.curves import COLOURS, curves, curves_figure

HISTORIES = {
    "baseline": [
        {"epoch": 1, "lam": 0.0, "val_top1_few": 10.0, "val_top1_overall": 20.0},
        {"epoch": 2, "lam": 0.0},
        {"epoch": 3, "lam": 1.0, "val_top1_few": 30.0, "val_top1_overall": 40.0},
    ],
    "adaptive": [{"epoch": 1, "lam": 0.5, "val_top1_overall": 25.0}],
}


def lines_of(axis):
    return {line.get_label(): line for line in axis.lines}


def test_scores_are_drawn_at_the_epochs_that_measured_them():
    top, bottom = curves_figure(HISTORIES).axes
    lines = lines_of(top)
    assert list(lines) == ["baseline, few", "baseline, overall", "adaptive, overall"]
    assert list(lines["baseline, few"].get_xdata()) == [1, 3]
    assert list(lines["baseline, few"].get_ydata()) == [10, 30]
    assert lines["baseline, few"].get_linestyle() == ":"
    assert lines["baseline, overall"].get_linestyle() == "-"
    assert top.get_ylabel() == "top-1 on val [%]"
    legend = [text.get_text() for text in top.get_legend().get_texts()]
    assert legend == list(lines)
    baseline, adaptive = bottom.lines
    assert list(baseline.get_ydata()) == [0, 0, 1]
    assert list(adaptive.get_ydata()) == [0.5]
    assert [baseline.get_color(), adaptive.get_color()] == list(COLOURS[:2])
    assert (bottom.get_xlabel(), bottom.get_ylabel()) == ("epoch", "λ")


def test_macro_f1_is_drawn_where_it_was_measured():
    history = [{"epoch": 1, "lam": 0.0, "val_macro_f1_id": 9.0, "val_macro_f1_ood": 8.0}]
    top, _ = curves_figure({"a": history}).axes
    assert list(lines_of(top)) == ["a, macro f1 id", "a, macro f1 ood"]
    assert top.get_ylabel() == "macro F1 on val [%]"


def test_without_a_score_there_is_no_legend_and_a_note_is_the_title():
    figure = curves_figure({"a": [{"epoch": 1, "lam": 1.0}]}, note="plumbing test")
    assert figure.axes[0].get_legend() is None
    assert figure.get_suptitle() == "plumbing test"


def test_the_picture_is_a_png():
    assert Image.open(io.BytesIO(curves(HISTORIES))).format == "PNG"
