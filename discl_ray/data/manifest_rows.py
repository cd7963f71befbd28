"""A manifest row by row, which is slow and names the lines that are wrong.

What reading it by columns needs as well is here, too: what a line is, and what makes a cell right.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from discl_ray.core.storage import Store
from discl_ray.data.column_names import choose_columns
from discl_ray.data.config import ManifestConfig
from discl_ray.data.file_lists import table_of_files
from discl_ray.data.files import ALL_SPLIT_WORDS, split_of
from discl_ray.data.root import guard, same_name
from discl_ray.data.text_files import Line, Problems, csv_rows
from discl_ray.data.wording import shown
from discl_ray.errors import DataError

REQUIRED = ("path", "label")
"""Columns that a manifest must have."""

OPTIONAL = ("split", "sample_id", "domain", "group")
"""Columns that it may have."""

COLUMNS = (*REQUIRED, *OPTIONAL)
"""Columns of ours."""

DELIMITERS = ";\t,|"
"""What other programs separate columns by; the first of these that a header holds is named."""

Row = tuple[int, Mapping[str, str]]
"""A line's number and its cells by their column."""

Table = tuple[list[str], Iterator[Row]]
"""The names of the columns, and the rows."""

Values = Mapping[str, str]
"""A row's cells by our columns, as they are written."""

Cells = dict[str, list[str | None]]
"""The manifest by our columns."""

Checked = Mapping[str, str | None]
"""One row of it."""


def by_row(root: Store, config: ManifestConfig, name: str, text: str) -> pa.Table:
    """LISTING of a manifest, its paths guarded.

    Raises DataError naming the lines that are wrong.
    """
    problems = Problems(name)
    found, rows = _parse(name, text, problems)
    columns = chosen_columns(config, found, name)
    checks = _Checks(root, problems)
    cells = checks.cells(rows, columns)
    problems.check()
    if not cells["path"]:
        raise DataError(f"{name}: has no row")
    class_key = cells.pop("label")
    return table_of_files(class_key=class_key, **cells)


def _parse(name: str, text: str, problems: Problems) -> Table:
    """The columns and rows of a manifest, whose kind its suffix tells."""
    if is_jsonl(name):
        return _jsonl(text, problems)
    header, lines = csv_lines(name, text, problems)
    return header, _csv_rows(lines, header, problems)


def is_jsonl(name: str) -> bool:
    """Whether a manifest has an object a line."""
    return name.lower().endswith(".jsonl")


def chosen_columns(config: ManifestConfig, found: Sequence[str], name: str) -> dict[str, str]:
    """Our name of each column -> its name in the manifest."""
    return choose_columns(config.columns, found, required=REQUIRED, optional=OPTIONAL, where=name)


def csv_lines(name: str, text: str, problems: Problems) -> tuple[list[str], Iterator[Line]]:
    """Column names, and the lines below them that are not blank."""
    delimiter = "\t" if name.lower().endswith(".tsv") else ","
    # people write `a.jpg, otter`; in a *.tsv a blank before a cell may be part of it
    trim = delimiter == ","
    rows = csv_rows(text, problems, delimiter=delimiter, trim=trim)
    columns = _header(rows)
    if not columns:
        problems.check()  # a quote that is not closed ends the rows, too, and says more
        raise DataError(f"{name}: line 1: there is no header")
    if len(columns) == 1:
        _check_delimiter(name, columns[0], delimiter)
    return columns, ((line, cells) for line, cells in rows if any(cells))


def _header(rows: Iterator[Line]) -> list[str]:
    """The names in the first row that is not blank, which is taken; empty if there is none."""
    for _, cells in rows:
        if any(cells):
            return [cell.strip() for cell in cells]
    return []


def _check_delimiter(name: str, column: str, delimiter: str) -> None:
    """Raises DataError if the only column's name holds what seems to be the delimiter."""
    needed = "tabs" if delimiter == "\t" else "commas"
    for other in DELIMITERS:
        if other in column:
            raise DataError(
                f"{name}: line 1: columns are separated by {other!r}; "
                f"needed: {needed} (a *.csv has commas, a *.tsv tabs)"
            )


def _csv_rows(lines: Iterator[Line], columns: list[str], problems: Problems) -> Iterator[Row]:
    """The rows that have as many cells as the header."""
    needed = len(columns)
    for line, cells in lines:
        count = len(cells)
        if count == needed:
            row = dict(zip(columns, cells, strict=True))
            yield line, row
        else:
            rule = f"has {count} fields, the header has {needed}"
            problems.add(f"line {line}", rule)


def _jsonl(text: str, problems: Problems) -> Table:
    """Column names, of all objects, and the rows."""
    rows: list[Row] = []
    columns: dict[str, None] = {}  # a set that keeps the order
    for line, words in enumerate(text.split("\n"), start=1):
        if not words.strip():
            continue
        try:
            value = _parse_object(words)
        except ValueError as error:
            problems.add(f"line {line}", str(error))
            continue
        row = without_nulls(value)
        rows.append((line, row))
        columns |= dict.fromkeys(row)
    if not rows:
        problems.check()
    return list(columns), iter(rows)


def without_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of an object: null is the same as none."""
    return {key: cell for key, cell in value.items() if cell is not None}


def _parse_object(words: str) -> dict[str, Any]:
    """One line of JSON, whose numbers stay text; raises ValueError with the rule it breaks."""
    try:
        value = json.loads(words, **_READING)
    except json.JSONDecodeError as error:
        where = f"{error.msg} at character {error.colno}"
        # its own message counts lines within this one: it is always line 1
        raise ValueError(f"is not JSON: {where}; one object a line is needed") from error
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError("is not an object; one object a line is needed")
    return value


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object; raises ValueError if a key is duplicated, which a dict would hide."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is duplicated")
    return found


_READING: dict[str, Any] = {
    "object_pairs_hook": _unique_keys,
    # numbers as they are written: label 0123 or 1e3 is a name, not an amount
    "parse_int": str,
    "parse_float": str,
    "parse_constant": str,
}
"""How an object is read."""

OBJECTS = json.JSONDecoder(**_READING)
"""`json.loads` would make one for each line."""


class _Checks:
    """Checks rows one after the other; what is wrong with them goes to `problems`."""

    def __init__(self, root: Store, problems: Problems) -> None:
        self._root = root
        self._problems = problems
        self._line_of: dict[str, int] = {}
        """By sample_id."""
        self._label_of: dict[str, tuple[str, int]] = {}
        """By path, and the line of it."""

    def cells(self, rows: Iterator[Row], columns: Mapping[str, str]) -> Cells:
        """The rows that are right, by column."""
        cells: Cells = {name: [] for name in COLUMNS}
        for line, row in rows:
            values: dict[str, str] = {}
            for ours, theirs in columns.items():
                values[ours] = row.get(theirs, "")
            checked = self._checked(line, values)
            if checked is None:
                continue
            for name, column in cells.items():
                cell = checked.get(name)
                column.append(cell or None)
        return cells

    def _checked(self, line: int, values: Values) -> Checked | None:
        """A row with its path guarded and its split in our word; None if it cannot be used."""
        where = f"line {line}"
        if not self._are_texts(where, values):
            return None
        label = values["label"]
        self._check_label(where, label)
        word = values.get("split", "")
        split = self._split(where, word)
        path = self._path(where, values["path"])
        if path is None:
            return None
        sample_id = values.get("sample_id") or path
        self._check_unique(line, sample_id, path, label)
        return {**values, "path": path, "sample_id": sample_id, "split": split}

    def _are_texts(self, where: str, values: Values) -> bool:
        """Whether all cells are text; the first other one is a problem."""
        for name, value in values.items():
            if not _is_text(value):
                found = shown(ascii(value))
                rule = f"{name} = {found}: text or a number is needed"
                self._problems.add(where, rule)
                return False
        return True

    def _path(self, where: str, given: str) -> str | None:
        """A row's path under the root; None if it is refused."""
        try:
            # a link out is refused later, as one broken image: the other rows can be used
            return guard(self._root, given, links=True)
        except ValueError as error:
            rule = f"path '{shown(given)}' {error}"
            self._problems.add(where, rule)
            return None

    def _split(self, where: str, word: str) -> str | None:
        """Our name of a row's split; None where it is to be drawn."""
        split = split_of(word)
        if word and split is None:
            allowed = ", ".join(ALL_SPLIT_WORDS)
            rule = f"split '{shown(word)}' is none of {allowed}"
            self._problems.add(where, rule)
        return split

    def _check_label(self, where: str, label: str) -> None:
        """A label is text that can be shown."""
        broken = broken_label(label)
        if broken:
            rule = f"label '{shown(label)}' {broken}"
            self._problems.add(where, rule)

    def _check_unique(self, line: int, sample_id: str, path: str, label: str) -> None:
        """One sample_id a row, and one label a path."""
        where = f"line {line}"
        first = self._line_of.setdefault(sample_id, line)
        if first != line:
            rule = f"sample_id '{shown(sample_id)}' is already in line {first}"
            self._problems.add(where, rule)
        other, first = self._label_of.setdefault(path, (label, line))
        differ = same_name(other) != same_name(label)
        if differ:
            place = shown(path)
            here = f"'{place}' is '{shown(label)}' here"
            rule = f"{here} and '{shown(other)}' in line {first}"
            self._problems.add(where, rule)


def _is_text(value: Any) -> bool:
    """Whether a cell is valid text.

    JSON may hold lists, truth values and unpaired surrogates instead.
    """
    if not isinstance(value, str):
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def broken_label(label: str) -> str | None:
    """What is wrong with a label."""
    plain = label.strip()
    if not plain:
        return "is empty"
    if any(unicodedata.category(character) == "Cc" for character in plain):
        return "holds a control character"
    return None
