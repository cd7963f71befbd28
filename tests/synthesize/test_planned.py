"""The plan of a round as it lies in a run's folder."""

import pyarrow as pa
import pytest

from discl_ray.core.schema import PLAN
from discl_ray.core.storage import Store, open_parquet
from discl_ray.errors import IntegrityError
from discl_ray.plan.grid import PlanSize
from discl_ray.plan.shards import shards_of
from discl_ray.synthesize.planned import (
    Planned,
    open_planned,
    plan_part,
    read_planned,
    shards_file,
    sources_part,
    whole_file,
    write_part,
)


def plan_rows(shards, source="s", start=0):
    """PLAN of shards of so many rows each, two rows a source."""
    numbers = [n for n, rows in enumerate(shards) for _ in range(rows)]
    rows = [
        {
            "gid": f"{source}-{start + row}",
            "shard_id": f"{source} shard {number}",
            "sample_id": f"{source}{row // 2}",
            "role": "probe" if row % 4 == 3 else "train",
            "num_steps": row + 1,
        }
        for row, number in enumerate(numbers)
    ]
    return pa.Table.from_pylist(rows, schema=PLAN)


@pytest.fixture
def two_parts(tmp_path):
    store = Store.at(tmp_path)
    parts = [plan_rows([30, 50, 1, 70], "a"), plan_rows([3], "b")]
    shards = []
    for number, part in enumerate(parts):
        write_part(store, plan_part(number), part)
        sources = sources_part(number), part["sample_id"].unique()
        shards.append(shards_of(part, plan_part(number), sources))
    store.write_table(shards_file(0), pa.concat_tables(shards))
    return store, parts


def test_a_plan_in_parts_counts_what_its_rows_count(two_parts):
    store, parts = two_parts
    planned, whole = open_planned(store), pa.concat_tables(parts)
    size = PlanSize.of(whole)
    assert planned.rows == size.rows
    assert planned.sources == size.sources
    assert planned.unet_steps == size.unet_steps
    assert planned.shards.num_rows == size.shards
    assert planned.probes == whole["role"].to_pylist().count("probe")
    assert planned.gids().equals(whole.select(["gid"]))
    for part, shards in zip(parts, planned.parts(), strict=True):
        assert planned.read_part(shards).equals(part)
    left = planned.without({"a shard 1", "b shard 0", "another"})
    assert left.shards["shard_id"].to_pylist() == ["a shard 0", "a shard 2", "a shard 3"]
    assert left.rows == 30 + 1 + 70


def test_no_row_group_divides_a_shard(two_parts):
    store, _ = two_parts
    file = open_parquet(store.path(plan_part(0)))
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [80, 71]


def test_an_earlier_versions_plan_in_one_file_is_opened_as_it_is(two_parts):
    store, parts = two_parts
    store.write_table(whole_file(0), parts[0])
    planned = open_planned(store)
    assert planned.gids().equals(parts[0].select(["gid"]))
    assert planned.shards["sources"].null_count == planned.shards.num_rows
    assert read_planned(store) == planned
    store.write(whole_file(0), b"PAR1")
    assert open_planned(store) is None
    with pytest.raises(IntegrityError, match="is gone or damaged"):
        read_planned(store)


def test_what_is_not_planned_is_none(tmp_path, two_parts):
    assert open_planned(Store.at(tmp_path / "empty")) is None
    assert open_planned(two_parts[0], 1) is None
    assert (whole_file(1), shards_file(2)) == ("plan-1.parquet", "shards-2.parquet")
    assert plan_part(3, 1) == "plan-1/000003.parquet"
    assert Planned(two_parts[0], open_planned(two_parts[0]).shards[:0]).gids().num_rows == 0
