import hashlib
import json
import os
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from discl_ray.core.ids import (
    file_hash,
    id_of_text,
    stable_id,
    stable_ids,
    stable_seed,
    stable_seeds,
)

CODE = (
    "from discl_ray.core.ids import stable_id, stable_seed\n"
    "parts = ('digit-0001', 3, 0.5, None, {'b': [1, 2], 'a': 'λ'}, True)\n"
    "print(stable_id(*parts), stable_seed(*parts))"
)
parts = st.lists(st.one_of(st.text(), st.integers(), st.booleans(), st.none()), max_size=4)


def test_ids_are_equal_in_processes_with_different_hash_seeds():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", CODE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "random")
    }
    assert len(outputs) == 1
    mine = ("digit-0001", 3, 0.5, None, {"a": "λ", "b": [1, 2]}, True)
    assert outputs.pop().split() == [stable_id(*mine), str(stable_seed(*mine))]


def plain(values):
    return [(type(v), v) for v in values]


@given(parts, parts)
def test_ids_are_equal_exactly_when_the_parts_are(a, b):
    assert (stable_id(*a) == stable_id(*b)) == (plain(a) == plain(b))


@pytest.mark.parametrize(
    ("a", "b"), [(("a", "bc"), ("ab", "c")), ((1,), ("1",)), ((1, 2), ((1, 2),)), ((0,), (False,))]
)
def test_neighbouring_parts_do_not_run_together(a, b):
    assert stable_id(*a) != stable_id(*b)
    assert stable_seed(*a) != stable_seed(*b)


@given(parts)
def test_seeds_fit_a_signed_integer_column(a):
    assert 0 <= stable_seed(*a) < 2**63


odd = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\"'\\,[]{}\n\x00é😀"), max_size=6
)
numbers = st.integers(-(2**63), 2**63 - 1)
rows_of = st.lists(st.tuples(odd, st.none() | odd, numbers), max_size=6)


@given(rows_of, odd, numbers, st.integers(0, 6))
@example([('"', "\\", 0), ("null", None, -1), ('","', "\x7f", 1)], "λ\u2028", 2**63 - 1, 1)
def test_ids_and_seeds_of_columns_are_those_of_their_rows(rows, text, number, cut):
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    first, second, third = (
        pa.array(values, kind)
        for values, kind in zip(columns, (pa.string(), pa.string(), pa.int64()), strict=True)
    )
    chunked = pa.chunked_array([first[:cut], first[cut:]], pa.string())
    parts = (text, chunked, second.dictionary_encode(), number, third, second)
    expected = [(text, a, b, number, c, b) for a, b, c in rows]
    assert stable_ids(*parts).to_pylist() == [stable_id(*row) for row in expected]
    assert stable_seeds(*parts).to_pylist() == [stable_seed(*row) for row in expected]


def test_file_hash_is_the_content_s_and_believes_a_cache_s_blob_name(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"x")
    assert file_hash(file) == hashlib.sha256(b"x").hexdigest()
    blob = tmp_path / ("0123456789abcdef" * 4)
    blob.write_bytes(b"y")
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(blob)
    other.symlink_to(file)
    assert file_hash(link) == blob.name
    assert file_hash(other) == file_hash(file)
    assert file_hash(blob) == hashlib.sha256(b"y").hexdigest()


@given(st.lists(st.text()))
def test_a_part_may_come_in_pieces_of_its_json(names):
    text = json.dumps({"a": names, "b": len(names)}, separators=(",", ":"))
    pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
    assert id_of_text(pieces) == stable_id({"b": len(names), "a": names})
