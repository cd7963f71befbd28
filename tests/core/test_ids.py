import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.ids import folder_hash, stable_id, stable_seed

CODE = (
    "from discl_ray.core.ids import stable_id, stable_seed\n"
    "parts = ('digit-0001', 3, 0.5, None, {'b': [1, 2], 'a': 'λ'}, True)\n"
    "print(stable_id(*parts), stable_seed(*parts))"
)
parts = st.lists(st.one_of(st.text(), st.integers(), st.booleans(), st.none()), max_size=4)


def test_ids_are_equal_in_processes_with_different_hash_seeds():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", CODE], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
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


@pytest.mark.parametrize(("a", "b"), [(("a", "bc"), ("ab", "c")), ((1,), ("1",)), ((1, 2), ((1, 2),)), ((0,), (False,))])
def test_neighbouring_parts_do_not_run_together(a, b):
    assert stable_id(*a) != stable_id(*b)
    assert stable_seed(*a) != stable_seed(*b)


@given(parts)
def test_seeds_fit_a_signed_integer_column(a):
    assert 0 <= stable_seed(*a) < 2**63


def test_folder_hash_sees_names_and_contents_but_not_dates(tmp_path):
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "a"
    file.write_bytes(b"1")
    before = folder_hash(tmp_path)
    os.utime(file, (1, 1))
    assert folder_hash(tmp_path) == before
    file.write_bytes(b"2")
    changed = folder_hash(tmp_path)
    file.write_bytes(b"1")
    file.rename(tmp_path / "sub" / "b")
    assert len({before, changed, folder_hash(tmp_path)}) == 3
