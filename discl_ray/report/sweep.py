"""A sweep as a table, and as a picture of every trial over epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from discl_ray.report.figure import BLUE, GREY, ORANGE, RED, Figure, hide_spines, png_of_figure
from discl_ray.report.tables import markdown_line, markdown_rule

COLOURS = {"finished": BLUE, "stopped": GREY, "failed": RED}
"""Of a trial's line, by its status."""

COLUMNS = 4
"""Small panels in a row, at most."""
LOG_FROM = 20
"""Ratio of the largest to the smallest value from which on the axis is logarithmic."""

Points = Sequence[tuple[Any, float]]
"""What is drawn from left to right, and the metric at each."""
Trial = tuple[str, Points]
"""A trial's status, and its metric by epoch."""
Swept = Mapping[str, Points]
"""By key: (value, metric) of the finished trials."""


def sweep_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table; `rows` are texts by column, all with the same columns."""
    heads = list(rows[0])
    titles = markdown_line(heads)
    rule = markdown_rule(len(heads))
    lines = [titles, rule]
    for row in rows:
        cells = [_cell(row[head]) for head in heads]
        lines.append(markdown_line(cells))
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A text without what would end the cell or the line of a Markdown table."""
    escaped = text.replace("|", "\\|")
    return escaped.replace("\n", " ")


def sweep_picture(
    trials: Sequence[Trial], best: int | None, swept: Swept, *, metric: str, title: str
) -> bytes:
    """`sweep_figure` as PNG."""
    figure = sweep_figure(trials, best, swept, metric=metric, title=title)
    return png_of_figure(figure)


def sweep_figure(
    trials: Sequence[Trial], best: int | None, swept: Swept, *, metric: str, title: str
) -> Figure:
    """The metric over epochs, a line per trial; the best one, given by its index, is thick.

    The small panels below, one per key, show the last metric of the finished trials.
    """
    keys = len(swept)
    columns = max(1, min(COLUMNS, keys))
    lower = math.ceil(keys / columns)
    width = 3.1 * max(columns, 2)
    height = 3.4 + 2.3 * lower
    size = width, height
    figure = plt.figure(figsize=size, layout="constrained")
    heights = [1.5] + [1] * lower
    grid = figure.add_gridspec(1 + lower, columns, height_ratios=heights)
    top = figure.add_subplot(grid[0, :])
    _plot_trials(top, trials, best)
    top.set_title(title)
    top.set_xlabel("epoch")
    top.set_ylabel(f"{metric} on val [%]")
    if top.lines:
        top.legend(frameon=False, fontsize=8, loc="lower right")
    for number, key in enumerate(swept):
        line, column = divmod(number, columns)
        place = grid[1 + line, column]
        axis = figure.add_subplot(place)
        _plot_key(axis, swept[key])
        axis.set_xlabel(key, fontsize=8)
        axis.tick_params(labelsize=7)
    hide_spines(figure.axes)
    return figure


def _plot_trials(axis: Axes, trials: Sequence[Trial], best: int | None) -> None:
    """Draws a line per trial; the legend names every status once."""
    labelled: set[str] = set()
    for number, (status, points) in enumerate(trials):
        if not points or number == best:
            continue
        label = None if status in labelled else status
        labelled.add(status)
        colour = COLOURS[status]
        _plot_trial(axis, points, label, color=colour, lw=1, alpha=0.55, ms=2)
    if best is not None:
        _, points = trials[best]
        _plot_trial(axis, points, "best", color=ORANGE, lw=2.5, ms=4)


def _plot_trial(axis: Axes, points: Points, label: str | None, **style: Any) -> None:
    """Draws a trial's line; `style` are matplotlib's properties of a line."""
    epochs, scores = _unzipped(points)
    axis.plot(epochs, scores, marker="o", label=label, **style)


def _unzipped(points: Points) -> tuple[list[Any], list[float]]:
    """The two parts of some points, each as a list."""
    places = [place for place, _ in points]
    scores = [score for _, score in points]
    return places, scores


def _plot_key(axis: Axes, points: Points) -> None:
    """Draws the metric by a key's value; values that are no numbers are side by side."""
    values, scores = _unzipped(points)
    are_numbers = [_is_number(value) for value in values]
    if all(are_numbers):
        axis.scatter(values, scores, s=14, color=BLUE)
        least = min(values, default=1)
        largest = max(values, default=1)
        ratio_is_large = largest > LOG_FROM * least
        if least > 0 and ratio_is_large:
            axis.set_xscale("log")
        return
    texts = list(map(str, values))
    names = sorted(set(texts))
    places = [names.index(text) for text in texts]
    axis.scatter(places, scores, s=14, color=BLUE)
    ticks = range(len(names))
    axis.set_xticks(ticks, names, rotation=25, ha="right", fontsize=6)


def _is_number(value: Any) -> bool:
    """Whether a value is a number; bool is a kind of int in Python, but not here."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float)
