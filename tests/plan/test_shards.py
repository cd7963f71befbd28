"""SHARDS say of each shard what its rows say."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.schema import SHARDS
from discl_ray.plan.shards import run_starts, shards_of

rows = st.lists(
    st.tuples(st.integers(1, 3), st.booleans(), st.lists(st.integers(1, 9), min_size=1)), max_size=6
)


@given(rows, st.integers(1, 30))
def test_shards_count_their_rows_and_name_their_sources(sources, full):
    plan, load, shard = [], 0, 0
    for number, (_, probe, steps) in enumerate(sources):
        for taken in steps:
            if load >= full:
                shard, load = shard + 1, 0
            load += taken
            role = "probe" if probe else "train"
            plan.append((f"shard {shard}", f"s{number}", role, taken))
    names = ["shard_id", "sample_id", "role", "num_steps"]
    kinds = [pa.string(), pa.string(), pa.string(), pa.int32()]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in plan], schema)
    ids = pa.chunked_array([pa.array([f"s{n}" for n in range(len(sources))], pa.string())])
    found = shards_of(table, "p", ("q", ids))
    assert found.schema == SHARDS
    seen, first = set(), 0
    for row in found.to_pylist():
        mine = [r for r in plan if r[0] == row["shard_id"]]
        numbers = [int(r[1][1:]) for r in mine]
        assert plan[first : first + len(mine)] == mine
        assert (row["plan"], row["plan_first"], row["rows"]) == ("p", first, len(mine))
        assert (row["sources"], row["sources_first"]) == ("q", min(numbers))
        assert row["sources_rows"] == max(numbers) - min(numbers) + 1
        assert row["new_sources"] == len(set(numbers) - seen)
        assert row["probes"] == sum(r[2] == "probe" for r in mine)
        assert row["unet_steps"] == sum(r[3] for r in mine)
        seen |= set(numbers)
        first += len(mine)
    assert first == len(plan)
    lost = shards_of(table, "p")
    places = ["sources", "sources_first", "sources_rows"]
    assert lost.drop(places).equals(found.drop(places))
    assert all(lost[name].null_count == lost.num_rows for name in places)


def test_runs_of_equal_values_begin_where_the_value_changes():
    values = pa.chunked_array([["a", "a"], ["a", "b"], ["a"]])
    np.testing.assert_array_equal(run_starts(values), [0, 3, 4])
    assert len(run_starts(values.slice(0, 0))) == 0
