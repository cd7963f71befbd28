"""Which column of a user's table is which of ours."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from discl_ray.data.wording import first_few, shown
from discl_ray.errors import DataError


def choose_columns(
    given: Mapping[str, str],
    found: Sequence[str],
    *,
    required: Sequence[str],
    optional: Sequence[str],
    where: str,
    remedy: str = "data.columns",
) -> dict[str, str]:
    """Our name of each column that a table has -> its name there.

    `given` names columns that are called differently there; `remedy` is the key of the
    configuration that does so.

    Raises DataError listing the table's columns if a required or given one is missing or ambiguous.
    """
    chosen: dict[str, str] = {}
    wrong: list[str] = []
    for ours in (*required, *optional):
        theirs = given.get(ours, ours)
        count = found.count(theirs)
        if count == 1:
            chosen[ours] = theirs
        elif count > 1:
            wrong.append(f"{count} columns are called '{shown(theirs)}'")
        elif ours in required or ours in given:
            suggestion = _suggestion(theirs, found)
            wrong.append(f"no column '{shown(theirs)}'{suggestion}")
    if wrong:
        listed = first_few(found, 30, 40) or "none"
        broken = "; ".join(wrong)
        raise DataError(
            f"{where}: {broken}; its columns are {listed}; say which is which with {remedy}"
        )
    return chosen


def _suggestion(name: str, found: Sequence[str]) -> str:
    """The column that is spelt most like a name, in brackets."""
    near = difflib.get_close_matches(name, found, n=1)
    if not near:
        return ""
    return f" (did you mean '{shown(near[0])}'?)"
