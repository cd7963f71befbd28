"""Tables of scores, as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from discl_ray.core.metrics import GROUPS, Scores

LOW_QUALITY = (("macro_f1", "ood"), ("macro_f1", "id"), ("top1", "ood"), ("top1", "id"))

LONG_TAIL = tuple(("top1", group) for group in GROUPS)


def percent(value: float, form: str = ".1f") -> str:
    """A percentage with one decimal; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:{form}}"


def count(number: float | None) -> str:
    """A whole number; a dash if it is unknown."""
    return "–" if number is None else f"{number:,.0f}"


def score_table(
    rows: Mapping[str, Scores],
    *,
    seen: Mapping[str, int | None],
    difference: tuple[str, str] | None = None,
) -> str:
    """Scores in percent, a line per row: by group of classes, or by domain if there are two.

    The last column is how many synthetic images the row saw. `difference` (a, b) adds the line
    b − a.
    """
    first = next(iter(rows.values()))
    columns = LOW_QUALITY if LOW_QUALITY[0] in first else LONG_TAIL
    heads = [_head(metric, group, first[metric, group][1]) for metric, group in columns]
    lines = [_line("on test [%]", [*heads, "synthetic seen"])]
    for label, row in rows.items():
        cells = [percent(row[column][0]) for column in columns]
        lines.append(_line(label, [*cells, count(seen[label])]))
    if difference is not None:
        base, other = rows[difference[0]], rows[difference[1]]
        gains = [other[column][0] - base[column][0] for column in columns]
        lines.append(_line("difference", [percent(gain, "+.1f") for gain in gains]))
    return "\n".join(lines)


def _head(metric: str, group: str, images: int) -> str:
    return f"{metric.replace('_', ' ')} {group} (n={images})"


def _line(label: str, cells: Iterable[str]) -> str:
    return f"  {label:<30}" + "".join(f"{cell:>22}" for cell in cells)
