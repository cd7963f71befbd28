"""Text files that people write, such as manifests and lists: decoded, split into rows.

All problems of a file are reported in one error.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from discl_ray.errors import DataError

MOST_PROBLEMS = 20
"""Problems of one file that an error lists; more would help nobody."""


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
) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, its cells) of each row but blank lines.

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
