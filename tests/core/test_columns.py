"""Questions to columns agree with the same questions to Python lists.

Columns are chunked or not, and have nulls among them.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from discl_ray.core import columns as c

NUMBERS = [3, None, 1, 3, 2, 1]
FLAGS = [True, None, False, True, False, None]


def chunked(values: list, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values[:2], kind), pa.array(values[2:], kind)], kind)


@pytest.fixture(params=["array", "chunked"])
def column(request):
    make = pa.array if request.param == "array" else chunked
    return lambda values, kind=None: make(values, kind)


def test_comparisons_are_null_where_a_value_is(column):
    numbers = column(NUMBERS, pa.int32())
    assert c.equal(numbers, 3).to_pylist() == [True, None, False, True, False, False]
    assert c.not_equal(numbers, 3).to_pylist() == [False, None, True, False, True, True]
    assert c.between(numbers, 2, 3).to_pylist() == [True, None, False, True, True, False]
    assert c.is_null(numbers).to_pylist() == [n is None for n in NUMBERS]
    assert c.is_valid(numbers).to_pylist() == [n is not None for n in NUMBERS]
    assert c.fill_null(numbers, 0).to_pylist() == [n or 0 for n in NUMBERS]
    assert c.between(pa.array([0.0, 1.0, float("nan")]), 0, 1).to_pylist() == [True, True, False]


@pytest.mark.parametrize("values", [[3, 1], pa.array([3, 1]), pa.chunked_array([[3], [1]])])
def test_membership_takes_lists_arrays_and_chunks(column, values):
    numbers = column(NUMBERS, pa.int64())
    assert c.is_in(numbers, values).to_pylist() == [True, False, True, True, False, True]
    assert c.places_in(numbers, values).to_pylist() == [0, None, 1, 0, None, 1]


def test_masks_combine_as_booleans_do(column):
    first, second = column(FLAGS, pa.bool_()), column([True] * 6, pa.bool_())
    assert c.negate(first).to_pylist() == [None if f is None else not f for f in FLAGS]
    assert c.both(first, second).to_pylist() == FLAGS
    assert c.either(first, second).to_pylist() == [f if f is None else True for f in FLAGS]
    whole = c.fill_null(first, False)
    np.testing.assert_array_equal(c.as_numpy(whole), [bool(f) for f in FLAGS])


def test_one_answer_over_all_rows(column):
    flags, numbers = column(FLAGS, pa.bool_()), column(NUMBERS, pa.int64())
    assert (c.any_true(flags), c.all_true(flags), c.total(flags)) == (True, False, 2)
    assert c.all_true(column([True, None, True], pa.bool_()))
    assert (c.total(numbers), c.smallest(numbers), c.largest(numbers)) == (10, 1, 3)
    assert c.mean(numbers) == 2.0
    nothing = column([], pa.bool_())
    assert (c.any_true(nothing), c.all_true(nothing), c.total(nothing)) == (False, True, 0)
    assert c.mean(nothing) is None


def test_counts_and_duplicates_are_in_the_order_of_first_appearance(column):
    numbers = column(NUMBERS, pa.int64())
    assert list(c.counts(numbers).items()) == list(Counter(NUMBERS).items())
    assert c.duplicates(numbers).to_pylist() == [3, 1]


def test_rows_are_sorted_by_one_key_after_the_other():
    table = pa.table({"a": [2, 1, 2, 1], "b": ["x", "y", "z", "z"]})
    order = c.sort_indices(table, ("a", "ascending"), ("b", "descending"))
    assert order.to_pylist() == [3, 1, 2, 0]


def test_texts_and_structs(column):
    texts = column([" a ", None, "é", "b"], pa.string())
    assert c.stripped(texts).to_pylist() == ["a", None, "é", "b"]
    assert c.is_ascii(texts).to_pylist() == [True, None, False, True]
    assert c.lengths(texts).to_pylist() == [3, None, 2, 1]
    assert c.composed(column(["e\u0301"] * 3)).to_pylist() == ["é"] * 3
    assert c.starts_with(texts, " ").to_pylist() == [True, None, False, False]
    assert c.matches(texts, "[a-zé]$").to_pylist() == [False, None, True, True]
    ones = c.replace_where(texts, column([True, False, False, True]), pa.array(["x", "y"]))
    assert ones.to_pylist() == ["x", None, "é", "y"]
    assert c.replace_matches(texts, "[ab]", "x").to_pylist() == [" x ", None, "é", "x"]
    assert c.smaller(c.lengths(texts), 2).to_pylist() == [False, None, False, True]
    assert c.joined(["p", texts], "#").to_pylist() == ["p# a ", None, "p#é", "p#b"]
    kind = pa.struct([("bytes", pa.binary())])
    images = column([{"bytes": b"1"}, None, {"bytes": None}], kind)
    assert c.member(images, "bytes").to_pylist() == [b"1", None, None]
    assert c.choose(pa.array([True, False]), pa.array([1, 2]), pa.array([3, 4])).to_pylist() == [
        1,
        4,
    ]


def test_rows_are_chosen_by_the_values_of_their_columns():
    table = pa.table({"role": ["train", "probe", None, "train"], "lam_pct": [0, 0, 0, 50]})
    assert c.rows_where(table, role="train").num_rows == 2
    assert c.rows_where(table, role="train", lam_pct=50).to_pylist() == [
        {"role": "train", "lam_pct": 50}
    ]
    assert c.rows_in(table, "role", ["probe", "none"]).to_pylist() == [
        {"role": "probe", "lam_pct": 0}
    ]


def test_a_column_of_any_kind_is_seen_as_its_distinct_values():
    texts = pa.chunked_array([["b", None], ["a", "b"]])
    for column in (texts, texts.combine_chunks(), texts.dictionary_encode(), texts.slice(0, 0)):
        coded = c.as_dictionary(column)
        assert coded.to_pylist() == column.to_pylist()
        assert len(set(coded.dictionary.to_pylist())) == len(coded.dictionary)
