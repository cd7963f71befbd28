"""Accuracy on val and the curriculum's λ over epochs, several runs in one picture."""

from __future__ import annotations

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SCORES = (("val_macro_f1_id", "val_macro_f1_ood"), ("val_top1_few", "val_top1_overall"))
"""What is drawn: the first pair that was measured."""

COLOURS = ("#8a8a8a", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce")


def curves(histories: dict[str, list[dict[str, Any]]], *, note: str = "") -> bytes:
    """A PNG: scores on val over epochs, and below them λ; one colour a run, dotted for the first score. `note` stands above."""
    keys = {key for rows in histories.values() for row in rows for key in row}
    shown = next(pair for pair in SCORES if pair[1] in keys or pair is SCORES[-1])
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, 5.2), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    for (label, rows), colour in zip(histories.items(), COLOURS, strict=False):
        for key, style in zip(shown, (":", "-"), strict=True):
            points = [(r["epoch"], r[key]) for r in rows if key in r]
            if points:
                name = key.removeprefix("val_").replace("top1_", "").replace("_", " ")
                top.plot(
                    *zip(*points, strict=True),
                    style,
                    color=colour,
                    marker="o",
                    ms=3,
                    label=f"{label}, {name}",
                )
        bottom.step([r["epoch"] for r in rows], [r["lam"] for r in rows], where="mid", color=colour)
    top.set_ylabel("macro F1 on val [%]" if "f1" in shown[0] else "top-1 on val [%]")
    if top.lines:
        top.legend(frameon=False, fontsize=8)
    bottom.set(xlabel="epoch", ylabel="λ", ylim=(-0.05, 1.05))
    bottom.xaxis.get_major_locator().set_params(integer=True)
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
    if note:
        figure.suptitle(note, fontsize=8, color="#b91c1c", wrap=True)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    plt.close(figure)
    return out.getvalue()
