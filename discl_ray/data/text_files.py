"""Text files that people write, such as manifests and lists: decoded, split into rows or columns.

All problems of a file are reported in one error.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import pyarrow as pa

from discl_ray.core.columns import Column, as_dictionary
from discl_ray.errors import DataError

MOST_PROBLEMS = 20
"""Problems of one file that an error lists; more would help nobody."""

BATCH = 50_000
"""Rows that are in memory as Python's texts at once: as columns they take a fifth of it."""

TEXT = pa.string()
"""Type of a column of texts."""

Line = tuple[int, list[str]]
"""The number of a row's first line, and its cells."""


class Problems:
    """What is wrong with one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lines: list[str] = []

    def add(self, where: str, rule: str) -> None:
        """Adds one problem; raises DataError as soon as there are MOST_PROBLEMS of them."""
        self._lines.append(f"  {where}: {rule}")
        if len(self._lines) == MOST_PROBLEMS:
            self._lines.append("  there may be more")
            self.check()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._lines)

    def check(self) -> None:
        """Raises DataError if there is any."""
        if self._lines:
            heading = f"{self._file}: cannot be used as it is:"
            raise DataError("\n".join([heading, *self._lines]))


def decode_text(file: str, data: bytes, remedy: str = "save it as UTF-8") -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises DataError naming the first line that is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        found = f"byte 0x{data[error.start]:02x}"
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            found = "UTF-16"
        problem = f"is not UTF-8 ({found})"
        raise DataError(f"{file}: line {line}: {problem}; {remedy}") from error


def csv_rows(
    text: str, problems: Problems, *, delimiter: str = ",", trim: bool = False
) -> Iterator[Line]:
    """Each row but blank lines.

    `trim` drops blanks before a cell. A quote that is not closed is a problem and ends the rows.
    """
    file = io.StringIO(text, newline="")
    reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=trim)
    first = 1
    try:
        for cells in reader:
            if cells:
                yield first, cells
            first = reader.line_num + 1  # a quoted cell may span lines
    except csv.Error as error:
        problems.add(f"line {first}", f"{error}; is a quote not closed?")


def gathered(
    rows: Iterator[Line], width: int, places: Sequence[int]
) -> list[pa.ChunkedArray] | None:
    """The cells at some places of rows, by column; None if a row has another width.

    Raises ValueError or TypeError if a cell is not valid text; None becomes null.
    """
    chunks: list[list[pa.Array]] = [[] for _ in places]
    while batch := list(islice(rows, BATCH)):
        if any(len(cells) != width for _, cells in batch):
            return None
        for place, column in zip(places, chunks, strict=True):
            texts = [cells[place] for _, cells in batch]
            column.append(pa.array(texts, TEXT))
    return [pa.chunked_array(column, TEXT) for column in chunks]


def distinct(texts: Column) -> list[str]:
    """Each text of a column once, in the order of first appearance."""
    return texts.unique().to_pylist()


def are_distinct(texts: Column) -> bool:
    """Whether no text is in two rows."""
    return len(texts.unique()) == len(texts)


def translated(texts: Column, meaning: Callable[[str], object], kind: pa.DataType = TEXT) -> Column:
    """What each text means, of type `kind`; of equal texts only one is asked about."""
    coded = as_dictionary(texts)
    meanings = [meaning(text) for text in coded.dictionary.to_pylist()]
    return pa.array(meanings, kind).take(coded.indices)
