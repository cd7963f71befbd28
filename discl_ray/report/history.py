"""What an adaptive curriculum measured: progress by level and epoch as a table, and as a picture with the levels it took."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from discl_ray.core.lam import REAL
from discl_ray.core.storage import Store
from discl_ray.curriculum.progress import from_metrics

TABLE = "curriculum.csv"
PICTURE = "curriculum.png"


def write_history_report(run: Store, history: Sequence[Mapping[str, Any]]) -> None:
    """Writes TABLE (epoch, level taken, lead, progress and its standard error by level) and PICTURE; nothing without progress."""
    if any(from_metrics(row) for row in history):
        run.write(TABLE, history_table(history).encode())
        run.write(PICTURE, history_picture(history))


def history_table(history: Sequence[Mapping[str, Any]]) -> str:
    """CSV with a line for each epoch and level."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["epoch", "lam_taken", "lead_in_se", "lam", "progress", "se"])
    for row in history:
        for level, progress in from_metrics(row).items():
            lead = row.get("lead_in_se", "")
            rows.writerow(
                [row["epoch"], row["lam"], lead, level / REAL, progress.mean, progress.se]
            )
    return out.getvalue()


def within_one_se(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of the adaptive stages in which the best level led the second by less than a standard error; None without any."""
    leads = [row["lead_in_se"] for row in history if "lead_in_se" in row]
    return sum(lead < 1 for lead in leads) / len(leads) if leads else None


def synthetic_seen(history: Sequence[Mapping[str, Any]]) -> int | None:
    """Synthetic images that a run was trained on, each time one was drawn counted.

    Without those drawn from the real images in their place; None if they were not told apart when it was recorded.
    """
    if any(row["borrowed"] and "borrowed_real" not in row for row in history):
        return None
    return sum(int(row["synthetic"]) - int(row.get("borrowed_real", 0)) for row in history)


def history_picture(history: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG: progress with a band of one standard error, a line a level; below it the level taken."""
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, 5), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    measured = [(row["epoch"], from_metrics(row)) for row in history if from_metrics(row)]
    levels = sorted({level for _, progress in measured for level in progress})
    for number, level in enumerate(levels):
        colour = plt.get_cmap("viridis")(number / max(1, len(levels) - 1) * 0.9)
        points = [
            (epoch, 100 * p[level].mean, 100 * p[level].se) for epoch, p in measured if level in p
        ]
        epochs, mean, se = zip(*points, strict=True)
        top.plot(
            epochs, mean, color=colour, marker="o", ms=3, lw=1.2, label=f"λ = {level / REAL:g}"
        )
        low, high = ([m + sign * s for m, s in zip(mean, se, strict=True)] for sign in (-1, 1))
        top.fill_between(epochs, low, high, color=colour, alpha=0.12, lw=0)
    top.axhline(0, color="#999999", lw=0.8)
    top.set_ylabel("progress: true class's probability,\nafter minus before [points]")
    top.legend(frameon=False, fontsize=8, ncols=len(levels))
    bottom.step(
        [row["epoch"] for row in history],
        [row["lam"] for row in history],
        where="mid",
        color="#1d4ed8",
    )
    bottom.set(xlabel="epoch", ylabel="λ taken", ylim=(-0.05, 1.05))
    bottom.xaxis.get_major_locator().set_params(integer=True)
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    plt.close(figure)
    return out.getvalue()
