"""Tables of scores, as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from discl_ray.core.metrics import GROUPS, Scores

Column = tuple[str, str]
"""Metric and group."""

LOW_QUALITY: tuple[Column, ...] = (
    ("macro_f1", "ood"),
    ("macro_f1", "id"),
    ("top1", "ood"),
    ("top1", "id"),
)
"""Columns of data with two domains."""

LONG_TAIL: tuple[Column, ...] = tuple(("top1", group) for group in GROUPS)
"""Columns of other data."""


def percent(value: float, form: str = ".1f") -> str:
    """A percentage with one decimal; a dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:{form}}"


def count(number: float | None) -> str:
    """A whole number; a dash if it is unknown."""
    if number is None:
        return "–"
    return f"{number:,.0f}"


def markdown_line(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    joined = " | ".join(cells)
    return f"| {joined} |"


def markdown_rule(columns: int) -> str:
    """The line below the heads of a Markdown table."""
    return "|---" * columns + "|"


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
    heads = [_head(column, first) for column in columns]
    head = _line("on test [%]", [*heads, "synthetic seen"])
    lines = [head]
    for label, row in rows.items():
        scores = _scores(row, columns)
        cells = [percent(score) for score in scores]
        images = seen[label]
        cells.append(count(images))
        line = _line(label, cells)
        lines.append(line)
    if difference is not None:
        base, other = difference
        before = _scores(rows[base], columns)
        after = _scores(rows[other], columns)
        pairs = zip(after, before, strict=True)
        gains = [score - of_base for score, of_base in pairs]
        cells = [percent(gain, "+.1f") for gain in gains]
        line = _line("difference", cells)
        lines.append(line)
    return "\n".join(lines)


def _scores(row: Scores, columns: Iterable[Column]) -> list[float]:
    """A row's scores in percent, without the numbers of images they are of."""
    scores: list[float] = []
    for column in columns:
        score, _ = row[column]
        scores.append(score)
    return scores


def _head(column: Column, row: Scores) -> str:
    """A column's head, with the number of test images that any row's scores are of."""
    metric, group = column
    name = metric.replace("_", " ")
    _, images = row[column]
    return f"{name} {group} (n={images})"


def _line(label: str, cells: Iterable[str]) -> str:
    """A line of the table, in columns of fixed widths."""
    start = label.ljust(30)
    columns = [cell.rjust(22) for cell in cells]
    return "".join(["  ", start, *columns])
