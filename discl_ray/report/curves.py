"""Accuracy on val and the curriculum's λ over epochs, several runs in one picture."""

from __future__ import annotations

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#8a8a8a", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce")


def curves(histories: dict[str, list[dict[str, Any]]], *, groups: tuple[str, ...] = ("few", "overall")) -> bytes:
    """A PNG: top-1 on val of each group over epochs, and below it λ; one colour a run, dotted for the first group."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 5.2), sharex=True, height_ratios=(3, 1), layout="constrained")
    for (label, rows), colour in zip(histories.items(), COLOURS, strict=False):
        for group, style in zip(groups, (":", "-"), strict=True):
            points = [(r["epoch"], r[f"val_top1_{group}"]) for r in rows if f"val_top1_{group}" in r]
            if points:
                top.plot(*zip(*points, strict=True), style, color=colour, marker="o", ms=3, label=f"{label}, {group}")
        bottom.step([r["epoch"] for r in rows], [r["lam"] for r in rows], where="mid", color=colour)
    top.set_ylabel("top-1 on val [%]")
    top.legend(frameon=False, fontsize=8)
    bottom.set(xlabel="epoch", ylabel="λ", ylim=(-0.05, 1.05))
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    plt.close(figure)
    return out.getvalue()
