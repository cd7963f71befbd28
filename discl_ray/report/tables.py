"""Tables of scores, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping

from discl_ray.core.metrics import GROUPS, Scores

LOW_QUALITY = (("macro_f1", "ood"), ("macro_f1", "id"), ("top1", "ood"), ("top1", "id"))

LONG_TAIL = tuple(("top1", group) for group in GROUPS)


def percent(value: float, form: str = ".1f") -> str:
    """One decimal, or a dash where there is nothing to measure."""
    return "–" if math.isnan(value) else f"{value:{form}}"


def count(number: float | None) -> str:
    """A whole number, or a dash where it is not known."""
    return "–" if number is None else f"{number:,.0f}"


def score_table(
    rows: Mapping[str, Scores],
    *,
    seen: Mapping[str, int | None],
    difference: tuple[str, str] | None = None,
) -> str:
    """Scores in percent, a line a row: by group of classes, or by domain where there are two; last the synthetic images `seen`.

    `difference` (a, b) adds the line b - a.
    """
    first = next(iter(rows.values()))
    columns = LOW_QUALITY if LOW_QUALITY[0] in first else LONG_TAIL
    heads = [
        f"{metric.replace('_', ' ')} {name} (n={first[metric, name][1]})"
        for metric, name in columns
    ]
    lines = [
        "  "
        + f"{'on test [%]':<30}"
        + "".join(f"{head:>22}" for head in [*heads, "synthetic seen"])
    ]
    for label, row in rows.items():
        cells = [*(percent(row[c][0]) for c in columns), count(seen[label])]
        lines.append("  " + f"{label:<30}" + "".join(f"{cell:>22}" for cell in cells))
    if difference is not None:
        base, other = (rows[label] for label in difference)
        lines.append(
            "  "
            + f"{'difference':<30}"
            + "".join(f"{percent(other[c][0] - base[c][0], '+.1f'):>22}" for c in columns)
        )
    return "\n".join(lines)
