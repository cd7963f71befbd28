"""What the package's matplotlib figures share."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib

# before pyplot is imported: other backends look for a display
matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Figure  # for the modules that make one

DPI = 110

BLUE, ORANGE, GREY, RED = "#1d4ed8", "#c2410c", "#8a8a8a", "#b91c1c"
SLATE = "#94a3b8"
"""Of the line at zero."""


def score_and_lam(height: float) -> tuple[Figure, Axes, Axes]:
    """A figure with a panel for scores, and below it a low one for λ, over the same epochs."""
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, height), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    return figure, top, bottom


def finish_epochs(bottom: Axes, label: str) -> None:
    """Labels the panel of λ; epochs are whole numbers."""
    bottom.set(xlabel="epoch", ylabel=label, ylim=(-0.05, 1.05))
    locator: Any = bottom.xaxis.get_major_locator()
    locator.set_params(integer=True)


def hide_spines(axes: Sequence[Axes], *sides: str) -> None:
    """Hides the frame's lines at the top and at the right, and at other sides."""
    for axis in axes:
        axis.spines[["top", "right", *sides]].set_visible(False)


def png_of_figure(figure: Figure, *, dpi: int = DPI) -> bytes:
    """A figure as PNG; closes it."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi)
    plt.close(figure)
    return out.getvalue()
