"""Accuracy on val and the curriculum's λ over epochs, several runs in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from discl_ray.report.figure import (
    BLUE,
    GREY,
    ORANGE,
    Figure,
    finish_epochs,
    hide_spines,
    png_of_figure,
    score_and_lam,
)

SCORES = (("val_macro_f1_id", "val_macro_f1_ood"), ("val_top1_few", "val_top1_overall"))
"""Pairs of scores; the first that was measured is drawn."""

STYLES = (":", "-")
"""Line styles of a pair."""
COLOURS = (GREY, ORANGE, BLUE, "#15803d", "#7e22ce")
"""Of the runs."""

History = Sequence[Mapping[str, Any]]
"""Records of a run's epochs."""
Histories = Mapping[str, History]
"""By the run's name."""


def curves(histories: Histories, *, note: str = "") -> bytes:
    """`curves_figure` as PNG."""
    figure = curves_figure(histories, note=note)
    return png_of_figure(figure)


def curves_figure(histories: Histories, *, note: str = "") -> Figure:
    """Scores on val over epochs, and λ below them: a colour per run, dotted for the first score.

    `note` is written in red above the figure.
    """
    shown = _scores_of(histories)
    figure, top, bottom = score_and_lam(5.2)
    for (label, rows), colour in zip(histories.items(), COLOURS, strict=False):
        for key, style in zip(shown, STYLES, strict=True):
            measured = [row for row in rows if key in row]
            if not measured:
                continue
            epochs = [row["epoch"] for row in measured]
            scores = [row[key] for row in measured]
            score = _name_of(key)
            name = f"{label}, {score}"
            top.plot(epochs, scores, style, color=colour, marker="o", ms=3, label=name)
        epochs = [row["epoch"] for row in rows]
        lams = [row["lam"] for row in rows]
        bottom.step(epochs, lams, where="mid", color=colour)
    metric = "macro F1" if "f1" in shown[0] else "top-1"
    top.set_ylabel(f"{metric} on val [%]")
    if top.lines:
        top.legend(frameon=False, fontsize=8)
    finish_epochs(bottom, "λ")
    hide_spines((top, bottom))
    if note:
        figure.suptitle(note, fontsize=8, color="#b91c1c", wrap=True)
    return figure


def _scores_of(histories: Histories) -> tuple[str, str]:
    """The pair of scores that was measured; the last if none was."""
    measured: set[str] = set()
    for rows in histories.values():
        measured.update(*rows)
    for pair in SCORES:
        if pair[1] in measured:
            return pair
    return SCORES[-1]


def _name_of(key: str) -> str:
    """A score's name in the legend."""
    name = key.removeprefix("val_")
    group_or_metric = name.replace("top1_", "")
    return group_or_metric.replace("_", " ")
