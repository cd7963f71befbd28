"""Tables of accuracy by group, as text and Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping

from discl_ray.evaluate.metrics import GROUPS


def percent(value: float) -> str:
    """One decimal, or a dash where there is nothing to measure."""
    return "–" if math.isnan(value) else f"{value:.1f}"


def accuracy_table(rows: Mapping[str, Mapping[str, tuple[float, int]]], *, difference: tuple[str, str] | None = None) -> str:
    """Top-1 in percent by group, a line a row; `difference` (a, b) adds the line b - a."""
    sizes = next(iter(rows.values()))
    lines = ["  " + f"{'top-1 on test [%]':<28}" + "".join(f"{f'{g} (n={sizes[g][1]})':>17}" for g in GROUPS)]
    lines += ["  " + f"{label:<28}" + "".join(f"{percent(row[g][0]):>17}" for g in GROUPS) for label, row in rows.items()]
    if difference is not None:
        first, second = (rows[label] for label in difference)
        cells = "".join(f"{second[g][0] - first[g][0]:>+17.1f}" for g in GROUPS)
        lines.append("  " + f"{'difference':<28}" + cells)
    return "\n".join(lines)
