"""A comparison as Markdown, and as a picture of its paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from discl_ray.report.figure import ORANGE, SLATE, Figure, hide_spines, png_of_figure
from discl_ray.report.tables import markdown_line, markdown_rule, percent

DPI = 130

DARK_SLATE = "#334155"
"""Of every contrast but the first."""


class Bounds(Protocol):
    """A mean with its interval."""

    @property
    def mean(self) -> float:
        """The mean; NaN if nothing was measured."""
        ...

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        ...

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        ...


Column = tuple[str, str]
"""Metric and group."""
Contrast = tuple[str, str]
"""A row and the row it is compared with."""
Differences = Mapping[tuple[str, str, Column], Bounds]
"""Paired differences by row, baseline and column."""
Gains = Mapping[tuple[str, str, Column], Bounds]
"""By gap, row and column."""

NAMES = {
    ("macro_f1", "ood"): "macro F1, OOD",
    ("macro_f1", "id"): "macro F1, ID",
    ("top1", "ood"): "top-1, OOD",
    ("top1", "id"): "top-1, ID",
}


def column_name(column: Column) -> str:
    """A column's title; of top-1 by group the group alone."""
    return NAMES.get(column, column[1])


def markdown(
    means: Mapping[tuple[str, Column], Bounds],
    differences: Differences,
    columns: Sequence[Column],
    *,
    what: str,
    seen: Mapping[str, str],
) -> str:
    """Two tables, in the order given: paired differences by (row, baseline), then means by row.

    The first contrast is bold. `seen` says how many synthetic images each row saw.
    """
    heads = [column_name(column) for column in columns]
    first = f"paired difference on {what}, mean [95 % interval]"
    lines = _table_head([first, *heads])
    for number, contrast in enumerate(_contrasts(differences)):
        label, base = contrast
        by_column = [differences[label, base, column] for column in columns]
        cells = map(_signed, by_column)
        name = _contrast_name(contrast)
        if number == 0:
            name = f"**{name}**"
        lines.append(markdown_line([name, *cells]))
    lines.append("")
    first = f"mean over seeds on {what} [95 % interval]"
    lines += _table_head([first, *heads, "synthetic seen"])
    labels = dict.fromkeys(label for label, _ in means)
    for label in labels:
        by_column = [means[label, column] for column in columns]
        cells = map(_plain, by_column)
        line = markdown_line([label, *cells, seen[label]])
        lines.append(line)
    return "\n".join(lines)


def _table_head(heads: Sequence[str]) -> list[str]:
    """The two lines above a table's rows."""
    return [markdown_line(heads), markdown_rule(len(heads))]


def _contrast_name(contrast: Contrast) -> str:
    """A contrast as a difference of its rows' names."""
    label, base = contrast
    return f"{label} − {base}"


def _contrasts(differences: Differences) -> list[Contrast]:
    """The pairs of rows, each once, in order."""
    pairs = dict.fromkeys((label, base) for label, base, _ in differences)
    return list(pairs)


def _signed(value: Bounds) -> str:
    """A difference in points with its interval."""
    return _with_interval(value, "+.1f")


def _plain(value: Bounds) -> str:
    """A percentage with its interval."""
    return _with_interval(value, ".1f")


def _with_interval(value: Bounds, form: str) -> str:
    """A mean and its interval, all in a format; a dash if nothing was measured."""
    if math.isnan(value.mean):
        return percent(value.mean)
    mean = format(value.mean, form)
    low = format(value.low, form)
    high = format(value.high, form)
    return f"{mean} [{low}, {high}]"


def picture(differences: Differences, columns: Sequence[Column], *, title: str) -> bytes:
    """`contrasts_figure` as PNG."""
    figure = contrasts_figure(differences, columns, title=title)
    return png_of_figure(figure, dpi=DPI)


def contrasts_figure(differences: Differences, columns: Sequence[Column], *, title: str) -> Figure:
    """A panel per column and a line per contrast: a dot with its interval.

    The first contrast is on top, in colour.
    """
    contrasts = _contrasts(differences)
    top = len(contrasts)
    width = 2.6 + 2.1 * len(columns)
    height = 1.1 + 0.27 * top
    figure, grid = plt.subplots(
        1,
        len(columns),
        figsize=(width, height),
        sharey=True,
        layout="constrained",
        squeeze=False,  # a single panel would not be in an array
    )
    axes = grid[0]
    places = list(range(top, 0, -1))
    for axis, column in zip(axes, columns, strict=True):
        for (label, base), y in zip(contrasts, places, strict=True):
            colour = ORANGE if y == top else DARK_SLATE
            difference = differences[label, base, column]
            _plot_interval(axis, difference, y, colour)
        _finish_panel(axis, column)
    names = [_contrast_name(contrast) for contrast in contrasts]
    axes[0].set_yticks(places, names, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _plot_interval(axis: Axes, value: Bounds, y: int, colour: str) -> None:
    """Draws a dot with its interval; nothing if there was nothing to measure."""
    if math.isnan(value.mean):
        return
    ends = [value.low, value.high]
    axis.plot(ends, [y, y], color=colour, lw=1.6, solid_capstyle="round")
    axis.plot([value.mean], [y], "o", color=colour, ms=4.5)


def _finish_panel(axis: Axes, column: Column) -> None:
    """Titles a panel and marks where there is no difference."""
    axis.axvline(0, color=SLATE, lw=0.8, zorder=0)
    axis.set_title(column_name(column), fontsize=10)
    axis.tick_params(labelsize=8, left=False)
    hide_spines((axis,), "left")
    axis.grid(axis="x", color="#e2e8f0", lw=0.6)
    axis.set_axisbelow(True)


def gap_picture(
    values: Gains, gaps: Sequence[str], columns: Sequence[Column], *, title: str
) -> bytes:
    """`gap_figure` as PNG."""
    figure = gap_figure(values, gaps, columns, title=title)
    return png_of_figure(figure, dpi=DPI)


def gap_figure(
    values: Gains, gaps: Sequence[str], columns: Sequence[Column], *, title: str
) -> Figure:
    """A panel per column, the gap from left to right, a line per row.

    `values` are gains by (gap, row, column).
    """
    in_order = dict.fromkeys(label for _, label, _ in values)
    labels = list(in_order)
    width = 1 + 3.4 * len(columns)
    figure, grid = plt.subplots(
        1,
        len(columns),
        figsize=(width, 4),
        layout="constrained",
        squeeze=False,  # a single panel would not be in an array
    )
    axes = grid[0]
    for axis, column in zip(axes, columns, strict=True):
        for number, label in enumerate(labels):
            points = [values[gap, label, column] for gap in gaps]
            from_middle = number - len(labels) / 2
            aside = 0.03 * from_middle  # or the intervals would cover each other
            _plot_gains(axis, points, aside, number, label)
        _finish_gap_panel(axis, gaps, column)
    last = axes[-1]
    last.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title, fontsize=10)
    return figure


def _finish_gap_panel(axis: Axes, gaps: Sequence[str], column: Column) -> None:
    """Labels a panel of gains and marks where there is no gain."""
    ticks = range(len(gaps))
    axis.set_xticks(ticks, gaps)
    axis.set_xlabel("gap between the web and the task")
    name = column_name(column)
    axis.set_ylabel(f"{name}: gain in top-1 [points]")
    axis.axhline(0, color=SLATE, lw=0.8, zorder=0)
    hide_spines((axis,))


def _plot_gains(
    axis: Axes, points: Sequence[Bounds], aside: float, number: int, label: str
) -> None:
    """Draws a row's gains with their intervals, each moved by `aside` of a gap."""
    gaps = range(len(points))
    places = [gap + aside for gap in gaps]
    means = [point.mean for point in points]
    below = [point.mean - point.low for point in points]
    above = [point.high - point.mean for point in points]
    colours = plt.get_cmap("tab10")
    axis.errorbar(
        places,
        means,
        [below, above],
        color=colours(number),
        marker="o",
        ms=4,
        lw=1.3,
        elinewidth=0.9,
        label=label,
    )
