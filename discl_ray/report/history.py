"""What an adaptive curriculum measured: progress by λ and epoch, as a table and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from discl_ray.core.lam import pct_to_lam
from discl_ray.core.storage import Store
from discl_ray.curriculum.progress import Progress, from_metrics
from discl_ray.report.figure import (
    BLUE,
    Figure,
    finish_epochs,
    hide_spines,
    png_of_figure,
    score_and_lam,
)

TABLE = "curriculum.csv"
PICTURE = "curriculum.png"

HEADS = ("epoch", "lam_taken", "lead_in_se", "lam", "progress", "se")
"""Columns of the TABLE."""

History = Sequence[Mapping[str, Any]]
"""Records of a run's epochs."""
ByEpoch = dict[int, Progress]
"""Progress of a λ by epoch."""


def write_history_report(run: Store, history: History) -> None:
    """Writes TABLE and PICTURE of a run; nothing if it measured no progress."""
    if not any(from_metrics(row) for row in history):
        return
    table = history_table(history)
    run.write(TABLE, table.encode())
    picture = history_picture(history)
    run.write(PICTURE, picture)


def history_table(history: History) -> str:
    """CSV with a line per epoch and λ.

    The λ taken, its lead over the second best in standard errors, and every λ's progress with its
    standard error.
    """
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(HEADS)
    for row in history:
        lead = row.get("lead_in_se", "")
        for lam_pct, progress in from_metrics(row).items():
            lam = pct_to_lam(lam_pct)
            measured = [lam, progress.mean, progress.se]
            stage = [row["epoch"], row["lam"], lead]
            rows.writerow(stage + measured)
    return out.getvalue()


def within_one_se(history: History) -> float | None:
    """Share of stages in which the best λ led by less than one standard error; None without any."""
    leads = [row["lead_in_se"] for row in history if "lead_in_se" in row]
    if not leads:
        return None
    small = [lead for lead in leads if lead < 1]
    return len(small) / len(leads)


def synthetic_seen(history: History) -> int | None:
    """How many times a synthetic image was drawn for training.

    Real images drawn in place of synthetic ones do not count; None if an old record does not tell
    them apart.
    """
    seen = 0
    for row in history:
        if row["borrowed"] and "borrowed_real" not in row:
            return None
        borrowed = int(row.get("borrowed_real", 0))
        seen += int(row["synthetic"]) - borrowed
    return seen


def history_picture(history: History) -> bytes:
    """`history_figure` as PNG."""
    figure = history_figure(history)
    return png_of_figure(figure)


def history_figure(history: History) -> Figure:
    """Progress with a band of one standard error, a line per λ; below it the λ that was taken."""
    figure, top, bottom = score_and_lam(5)
    by_lam = _by_lam(history)
    count = len(by_lam)
    colours = plt.get_cmap("viridis")
    steps = max(1, count - 1)
    for number, (lam_pct, measured) in enumerate(by_lam.items()):
        share = number / steps
        colour = colours(share * 0.9)  # the last tenth is too pale on white
        lam = pct_to_lam(lam_pct)
        name = f"λ = {lam:g}"
        _plot_progress(top, measured, colour, name)
    top.axhline(0, color="#999999", lw=0.8)
    top.set_ylabel("progress: true class's probability,\nafter minus before [points]")
    top.legend(frameon=False, fontsize=8, ncols=count)
    epochs = [row["epoch"] for row in history]
    taken = [row["lam"] for row in history]
    bottom.step(epochs, taken, where="mid", color=BLUE)
    finish_epochs(bottom, "λ taken")
    hide_spines((top, bottom))
    return figure


def _by_lam(history: History) -> dict[int, ByEpoch]:
    """Progress by λ in percent, ascending."""
    found: dict[int, ByEpoch] = {}
    for row in history:
        epoch = row["epoch"]
        for lam_pct, progress in from_metrics(row).items():
            by_epoch = found.setdefault(lam_pct, {})
            by_epoch[epoch] = progress
    ascending = sorted(found)
    return {lam_pct: found[lam_pct] for lam_pct in ascending}


def _plot_progress(axis: Axes, measured: ByEpoch, colour: Any, label: str) -> None:
    """Draws progress, in points, by epoch, and its band."""
    epochs = list(measured)
    stages = measured.values()
    mean = np.array([100 * stage.mean for stage in stages])
    se = np.array([100 * stage.se for stage in stages])
    axis.plot(epochs, mean, color=colour, marker="o", ms=3, lw=1.2, label=label)
    low = mean - se
    high = mean + se
    axis.fill_between(epochs, low, high, color=colour, alpha=0.12, lw=0)
