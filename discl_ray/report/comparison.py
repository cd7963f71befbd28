"""A comparison as Markdown, and as a picture of its paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from discl_ray.report.figure import ORANGE, SLATE, Figure, hide_spines, png_of_figure
from discl_ray.report.tables import percent

DPI = 130


class Bounds(Protocol):
    """A mean with its interval."""

    @property
    def mean(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102


Column = tuple[str, str]
"""Metric and group."""
Contrast = tuple[str, str]
"""A row and the row it is compared with."""

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
    differences: Mapping[tuple[str, str, Column], Bounds],
    columns: Sequence[Column],
    *,
    what: str,
    seen: Mapping[str, str],
) -> str:
    """Two tables, in the order given: paired differences by (row, baseline), then means by row.

    The first contrast is bold. `seen` says how many synthetic images each row saw.
    """
    heads = [column_name(column) for column in columns]
    lines = [
        _line([f"paired difference on {what}, mean [95 % interval]", *heads]),
        "|---" * (len(columns) + 1) + "|",
    ]
    for number, (label, base) in enumerate(_contrasts(differences)):
        cells = [_signed(differences[label, base, column]) for column in columns]
        name = f"{label} − {base}"
        lines.append(_line([name if number else f"**{name}**", *cells]))
    lines += [
        "",
        _line([f"mean over seeds on {what} [95 % interval]", *heads, "synthetic seen"]),
        "|---" * (len(columns) + 2) + "|",
    ]
    for label in dict.fromkeys(label for label, _ in means):
        cells = [_plain(means[label, column]) for column in columns]
        lines.append(_line([label, *cells, seen[label]]))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _contrasts(differences: Iterable[tuple[str, str, Column]]) -> list[Contrast]:
    """The pairs of rows, each once, in order."""
    return list(dict.fromkeys((label, base) for label, base, _ in differences))


def _signed(value: Bounds) -> str:
    if math.isnan(value.mean):
        return percent(value.mean)
    return f"{value.mean:+.1f} [{value.low:+.1f}, {value.high:+.1f}]"


def _plain(value: Bounds) -> str:
    if math.isnan(value.mean):
        return percent(value.mean)
    return f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]"


def picture(
    differences: Mapping[tuple[str, str, Column], Bounds], columns: Sequence[Column], *, title: str
) -> bytes:
    """`contrasts_figure` as PNG."""
    return png_of_figure(contrasts_figure(differences, columns, title=title), dpi=DPI)


def contrasts_figure(
    differences: Mapping[tuple[str, str, Column], Bounds], columns: Sequence[Column], *, title: str
) -> Figure:
    """A panel per column and a line per contrast: a dot with its interval.

    The first contrast is on top, in colour.
    """
    contrasts = _contrasts(differences)
    size = (2.6 + 2.1 * len(columns), 1.1 + 0.27 * len(contrasts))
    figure, axes = plt.subplots(
        1, len(columns), figsize=size, sharey=True, layout="constrained", squeeze=False
    )
    places = range(len(contrasts), 0, -1)
    for axis, column in zip(axes[0], columns, strict=True):
        for (label, base), y in zip(contrasts, places, strict=True):
            colour = ORANGE if y == len(contrasts) else "#334155"
            _plot_interval(axis, differences[label, base, column], y, colour)
        _finish_panel(axis, column)
    names = [f"{label} − {base}" for label, base in contrasts]
    axes[0][0].set_yticks(list(places), names, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _plot_interval(axis: Axes, value: Bounds, y: int, colour: str) -> None:
    """Draws a dot with its interval; nothing if there was nothing to measure."""
    if math.isnan(value.mean):
        return
    axis.plot([value.low, value.high], [y, y], color=colour, lw=1.6, solid_capstyle="round")
    axis.plot([value.mean], [y], "o", color=colour, ms=4.5)


def _finish_panel(axis: Axes, column: Column) -> None:
    axis.axvline(0, color=SLATE, lw=0.8, zorder=0)
    axis.set_title(column_name(column), fontsize=10)
    axis.tick_params(labelsize=8, left=False)
    hide_spines((axis,), "left")
    axis.grid(axis="x", color="#e2e8f0", lw=0.6)
    axis.set_axisbelow(True)


def gap_picture(
    values: Mapping[tuple[str, str, Column], Bounds],
    gaps: Sequence[str],
    columns: Sequence[Column],
    *,
    title: str,
) -> bytes:
    """`gap_figure` as PNG."""
    return png_of_figure(gap_figure(values, gaps, columns, title=title), dpi=DPI)


def gap_figure(
    values: Mapping[tuple[str, str, Column], Bounds],
    gaps: Sequence[str],
    columns: Sequence[Column],
    *,
    title: str,
) -> Figure:
    """A panel per column, the gap from left to right, a line per row.

    `values` are gains by (gap, row, column).
    """
    labels = list(dict.fromkeys(label for _, label, _ in values))
    size = (1 + 3.4 * len(columns), 4)
    figure, axes = plt.subplots(1, len(columns), figsize=size, layout="constrained", squeeze=False)
    for axis, column in zip(axes[0], columns, strict=True):
        for number, label in enumerate(labels):
            points = [values[gap, label, column] for gap in gaps]
            aside = 0.03 * (number - len(labels) / 2)  # or the intervals would cover each other
            _plot_gains(axis, points, aside, number, label)
        axis.set_xticks(range(len(gaps)), gaps)
        axis.set_xlabel("gap between the web and the task")
        axis.set_ylabel(f"{column_name(column)}: gain in top-1 [points]")
        axis.axhline(0, color=SLATE, lw=0.8, zorder=0)
        hide_spines((axis,))
    axes[0][-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title, fontsize=10)
    return figure


def _plot_gains(
    axis: Axes, points: Sequence[Bounds], aside: float, number: int, label: str
) -> None:
    """Draws a row's gains with their intervals, each moved by `aside` of a gap."""
    axis.errorbar(
        [gap + aside for gap in range(len(points))],
        [point.mean for point in points],
        [
            [point.mean - point.low for point in points],
            [point.high - point.mean for point in points],
        ],
        color=plt.get_cmap("tab10")(number),
        marker="o",
        ms=4,
        lw=1.3,
        elinewidth=0.9,
        label=label,
    )
