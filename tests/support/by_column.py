"""A reader by columns and the same reader row by row, held against each other."""

from collections.abc import Callable
from typing import Any

from discl_ray.errors import DataError


def outcome(read: Callable[[], Any]) -> Any:
    """What a reader finds, or its error as text."""
    try:
        return read()
    except DataError as error:
        return str(error)


def agree(by_column: Callable[[], Any], by_row: Callable[[], Any]) -> bool:
    """Whether columns hold what the rows do, and there are none just where a row is wrong."""
    found = outcome(by_column)
    wanted = outcome(by_row)
    if found is None:
        return isinstance(wanted, str)
    return found == wanted
