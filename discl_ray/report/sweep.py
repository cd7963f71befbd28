"""A sweep as a table, and as a picture of every trial over epochs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {"finished": "#1d4ed8", "stopped": "#8a8a8a", "failed": "#b91c1c"}


def sweep_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Markdown; `rows` are texts by column, all with the same columns."""
    heads = list(rows[0])
    cell = lambda value: value.replace("|", "\\|").replace("\n", " ")  # noqa: E731
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join(
        [*lines, *(f"| {' | '.join(cell(row[head]) for head in heads)} |" for row in rows)]
    )


def sweep_picture(
    trials: Sequence[tuple[str, Sequence[tuple[int, float]]]],
    best: int | None,
    swept: Mapping[str, Sequence[tuple[Any, float]]],
    *,
    metric: str,
    title: str,
) -> bytes:
    """A PNG. Above: the metric over epochs, a line a trial (status, points), the best thick; below: its last value by each key.

    `swept` is, by key, the (value, metric) of the finished trials; values that are no numbers stand side by side.
    """
    columns = max(1, min(4, len(swept)))
    lower = -(-len(swept) // columns)
    figure = plt.figure(figsize=(3.1 * max(columns, 2), 3.4 + 2.3 * lower), layout="constrained")
    grid = figure.add_gridspec(1 + lower, columns, height_ratios=[1.5, *[1] * lower])
    top = figure.add_subplot(grid[0, :])
    labelled = set[str]()
    for number, (status, points) in enumerate(trials):
        if points and number != best:
            label = None if status in labelled else status
            labelled.add(status)
            top.plot(
                *zip(*points, strict=True),
                color=COLOURS[status],
                lw=1,
                alpha=0.55,
                marker="o",
                ms=2,
                label=label,
            )
    if best is not None:
        top.plot(
            *zip(*trials[best][1], strict=True),
            color="#c2410c",
            lw=2.5,
            marker="o",
            ms=4,
            label="best",
        )
    top.set(xlabel="epoch", ylabel=f"{metric} on val [%]", title=title)
    top.legend(frameon=False, fontsize=8, loc="lower right")
    for number, (key, points) in enumerate(swept.items()):
        axis = figure.add_subplot(grid[1 + number // columns, number % columns])
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v, _ in points)
        names = [] if numeric else sorted({str(v) for v, _ in points})
        at = [v if numeric else names.index(str(v)) for v, _ in points]
        axis.scatter(at, [m for _, m in points], s=14, color=COLOURS["finished"])
        if not numeric:
            axis.set_xticks(range(len(names)), names, rotation=25, ha="right", fontsize=6)
        elif min(at, default=1) > 0 and max(at, default=1) > 20 * min(at, default=1):
            axis.set_xscale("log")
        axis.set_xlabel(key, fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    plt.close(figure)
    return out.getvalue()
