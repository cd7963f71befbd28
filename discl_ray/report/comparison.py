"""A comparison as Markdown, and as a picture of its paired differences."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from discl_ray.report.tables import percent


class Bounds(Protocol):
    """A mean with its interval."""

    @property
    def mean(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102


Column = tuple[str, str]

NAMES = {
    ("macro_f1", "ood"): "macro F1, OOD",
    ("macro_f1", "id"): "macro F1, ID",
    ("top1", "ood"): "top-1, OOD",
    ("top1", "id"): "top-1, ID",
}


def column_name(column: Column) -> str:
    """What a column is called: the group alone for top-1 by group."""
    return NAMES.get(column, column[1])


def markdown(
    means: Mapping[tuple[str, Column], Bounds],
    differences: Mapping[tuple[str, str, Column], Bounds],
    columns: Sequence[Column],
    *,
    what: str,
    seen: Mapping[str, str],
) -> str:
    """Two tables: paired differences by (row, baseline), the first one in bold, then means by row; in the order they are given.

    `seen` is what each row saw of synthetic images, in words.
    """
    head = " | ".join(map(column_name, columns))
    lines = [
        f"| paired difference on {what}, mean [95 % interval] | {head} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for number, (label, base) in enumerate(
        dict.fromkeys((label, base) for label, base, _ in differences)
    ):
        cells = [_signed(differences[label, base, column]) for column in columns]
        name = f"**{label} − {base}**" if number == 0 else f"{label} − {base}"
        lines.append("| " + " | ".join([name, *cells]) + " |")
    lines += [
        "",
        f"| mean over seeds on {what} [95 % interval] | {head} | synthetic seen |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for label in dict.fromkeys(label for label, _ in means):
        lines.append(
            "| "
            + " | ".join(
                [label, *(_plain(means[label, column]) for column in columns), seen[label]]
            )
            + " |"
        )
    return "\n".join(lines)


def _signed(value: Bounds) -> str:
    if math.isnan(value.mean):
        return percent(value.mean)
    return f"{value.mean:+.1f} [{value.low:+.1f}, {value.high:+.1f}]"


def _plain(value: Bounds) -> str:
    return (
        percent(value.mean)
        if math.isnan(value.mean)
        else f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]"
    )


def picture(
    differences: Mapping[tuple[str, str, Column], Bounds], columns: Sequence[Column], *, title: str
) -> bytes:
    """A PNG: a panel a column, a line a contrast, a dot with its interval; the first contrast on top, in colour."""
    contrasts = list(dict.fromkeys((label, base) for label, base, _ in differences))
    size = (2.6 + 2.1 * len(columns), 1.1 + 0.27 * len(contrasts))
    figure, axes = plt.subplots(
        1, len(columns), figsize=size, sharey=True, layout="constrained", squeeze=False
    )
    places = range(len(contrasts), 0, -1)
    for axis, column in zip(axes[0], columns, strict=True):
        for (label, base), y in zip(contrasts, places, strict=True):
            value = differences[label, base, column]
            if math.isnan(value.mean):
                continue
            colour = "#c2410c" if y == len(contrasts) else "#334155"
            axis.plot([value.low, value.high], [y, y], color=colour, lw=1.6, solid_capstyle="round")
            axis.plot([value.mean], [y], "o", color=colour, ms=4.5)
        axis.axvline(0, color="#94a3b8", lw=0.8, zorder=0)
        axis.set_title(column_name(column), fontsize=10)
        axis.tick_params(labelsize=8, left=False)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.grid(axis="x", color="#e2e8f0", lw=0.6)
        axis.set_axisbelow(True)
    axes[0][0].set_yticks(
        list(places), [f"{label} − {base}" for label, base in contrasts], fontsize=8
    )
    figure.suptitle(title, fontsize=10)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    plt.close(figure)
    return out.getvalue()


def gap_picture(
    values: Mapping[tuple[str, str, Column], Bounds],
    gaps: Sequence[str],
    columns: Sequence[Column],
    *,
    title: str,
) -> bytes:
    """A PNG: a panel a column, the gap from left to right, a line a row; `values` are gains by (gap, row, column)."""
    labels = list(dict.fromkeys(label for _, label, _ in values))
    figure, axes = plt.subplots(
        1, len(columns), figsize=(1 + 3.4 * len(columns), 4), layout="constrained", squeeze=False
    )
    for axis, column in zip(axes[0], columns, strict=True):
        for number, label in enumerate(labels):
            points = [values[gap, label, column] for gap in gaps]
            at = [
                x + 0.03 * (number - len(labels) / 2) for x in range(len(gaps))
            ]  # or intervals would hide each other
            errors = [[p.mean - p.low for p in points], [p.high - p.mean for p in points]]
            colour = plt.get_cmap("tab10")(number)
            axis.errorbar(
                at,
                [p.mean for p in points],
                errors,
                color=colour,
                marker="o",
                ms=4,
                lw=1.3,
                elinewidth=0.9,
                label=label,
            )
        axis.set_xticks(range(len(gaps)), gaps)
        axis.set(
            xlabel="gap between the web and the task",
            ylabel=f"{column_name(column)}: gain in top-1 [points]",
        )
        axis.axhline(0, color="#94a3b8", lw=0.8, zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title, fontsize=10)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    plt.close(figure)
    return out.getvalue()
