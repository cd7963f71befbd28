"""The functions of `pyarrow.compute` that this package uses, with types.

pyarrow makes its own at import, where no type checker sees them. A `Mask` is a column of booleans,
one a row. A comparison with null is null, and a filter leaves out both null and false rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

Column: TypeAlias = pa.ChunkedArray | pa.Array
Mask: TypeAlias = Column

_compute: Any = pyarrow.compute
"""Untyped on purpose, in this file alone."""


def equal(column: Column, value: object) -> Mask:
    """Which rows hold a value, or what another column holds in the same row."""
    return _compute.equal(column, value)


def not_equal(column: Column, value: object) -> Mask:
    """Which rows hold another value than the given one, or than another column in the same row."""
    return _compute.not_equal(column, value)


def between(column: Column, low: float, high: float) -> Mask:
    """Which rows hold a number in [low, high]; NaN is not."""
    above = _compute.greater_equal(column, low)
    below = _compute.less_equal(column, high)
    return both(above, below)


def is_in(column: Column, values: Column | Sequence[object]) -> Mask:
    """Which rows hold one of the values; never null."""
    return _compute.is_in(column, value_set=_values(values, column.type))


def places_in(column: Column, values: Column | Sequence[object]) -> Column:
    """Index among `values` of what each row holds (int32); null where it is not among them."""
    return _compute.index_in(column, value_set=_values(values, column.type))


def _values(values: Column | Sequence[object], kind: pa.DataType) -> Column:
    """Values as a column; plain ones get the type they are compared with."""
    if isinstance(values, pa.ChunkedArray | pa.Array):
        return values
    return pa.array(values, kind)


def is_null(column: Column) -> Mask:
    """Which rows hold nothing."""
    return _compute.is_null(column)


def is_valid(column: Column) -> Mask:
    """Which rows hold something."""
    return _compute.is_valid(column)


def fill_null(column: Column, value: object) -> Column:
    """The column with a value where it holds nothing."""
    return _compute.fill_null(column, value)


def negate(mask: Mask) -> Mask:
    """The other rows; null stays null."""
    return _compute.invert(mask)


def both(first: Mask, second: Mask) -> Mask:
    """Rows of both masks; null if either is null."""
    return _compute.and_(first, second)


def either(first: Mask, second: Mask) -> Mask:
    """Rows of at least one mask; null if either is null."""
    return _compute.or_(first, second)


def any_true(mask: Mask) -> bool:
    """Whether a row is true; null counts as false."""
    return bool(_compute.any(mask).as_py())


def all_true(mask: Mask) -> bool:
    """Whether no row is false; null counts as true, and so does a mask without rows."""
    return _compute.all(mask, min_count=0).as_py()


def as_numpy(mask: Mask) -> NDArray[np.bool_]:
    """A mask without nulls as booleans, shape (rows,)."""
    return mask.to_numpy(zero_copy_only=False)


def total(column: Column) -> int:
    """The sum of whole numbers, or the number of true rows; 0 without any."""
    return _compute.sum(column).as_py() or 0


def mean(column: Column) -> float | None:
    """The mean of the numbers, or the share of true rows; None without any."""
    return _compute.mean(column).as_py()


def smallest(column: Column) -> Any:
    """The smallest value; None without any."""
    return _compute.min(column).as_py()


def largest(column: Column) -> Any:
    """The largest value; None without any."""
    return _compute.max(column).as_py()


def as_dictionary(column: Column) -> pa.DictionaryArray:
    """A column as its distinct values, and which of them each row holds."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()


def counts(column: Column) -> dict[Any, int]:
    """How many rows hold each value, in the order of first appearance."""
    found = _compute.value_counts(column)
    return {pair["values"]: pair["counts"] for pair in found.to_pylist()}


def duplicates(column: Column) -> pa.Array:
    """The values that more than one row holds, in the order of first appearance."""
    found = _compute.value_counts(column)
    several = _compute.greater(found.field("counts"), 1)
    return found.field("values").filter(several)


def sort_indices(table: pa.Table, *keys: tuple[str, str]) -> pa.Array:
    """The row numbers in the order of (column, `ascending` or `descending`) keys, uint64."""
    return _compute.sort_indices(table, sort_keys=list(keys))


def lengths(column: Column) -> Column:
    """The lengths in bytes of binary values or texts, null where there is none."""
    return _compute.binary_length(column)


def member(column: Column, name: str) -> Column:
    """One field of a column of structs, null where the struct is."""
    return _compute.struct_field(column, name)


def choose(mask: Mask, yes: Column | str, no: Column | str) -> Column:
    """Row by row from `yes` where the mask is true, from `no` where it is false.

    A `str` is the same in every row.
    """
    return _compute.if_else(mask, yes, no)


def starts_with(column: Column, beginning: str) -> Mask:
    """Which texts start with another one."""
    return _compute.starts_with(column, beginning)


def matches(column: Column, pattern: str) -> Mask:
    """Which texts hold a match of a regular expression of RE2."""
    return _compute.match_substring_regex(column, pattern)


def replace_where(column: Column, mask: Mask, values: Column) -> Column:
    """The column with the values, one after the other, in the rows of the mask."""
    whole = mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
    return _compute.replace_with_mask(column, whole, values)


def replace_matches(column: Column, pattern: str, text: str) -> Column:
    """The texts with another one in the place of each match of a regular expression of RE2."""
    return _compute.replace_substring_regex(column, pattern, text)


def smaller(column: Column, value: object) -> Mask:
    """Which rows hold less than a value."""
    return _compute.less(column, value)


def stripped(column: Column) -> Column:
    """The texts without white space at either end."""
    return _compute.utf8_trim_whitespace(column)


def is_ascii(column: Column) -> Mask:
    """Which texts are of ASCII characters alone."""
    return _compute.string_is_ascii(column)


def composed(column: Column) -> Column:
    """The texts in Unicode's composed form, NFC."""
    return _compute.utf8_normalize(column, form="NFC")


def joined(parts: Sequence[Column | str], separator: str = "") -> Column:
    """Texts joined row by row with a separator; a `str` part is the same in every row."""
    scalars = [pa.scalar(part) if isinstance(part, str) else part for part in parts]
    return _compute.binary_join_element_wise(*scalars, separator)


def rows_where(table: pa.Table, **values: object) -> pa.Table:
    """Rows whose columns have the given values, as in `rows_where(spectrum, role="train")`."""
    for name, value in values.items():
        table = table.filter(equal(table[name], value))
    return table


def rows_in(table: pa.Table, name: str, values: Column | Sequence[object]) -> pa.Table:
    """The rows of a table whose named column holds one of the values."""
    return table.filter(is_in(table[name], values))
