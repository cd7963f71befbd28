"""Shards are written whole, their rows by source and λ."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discl_ray.core.schema import SPECTRUM
from discl_ray.core.storage import ROW_GROUP
from discl_ray.embedded.digits import NAMES
from discl_ray.spectrum.commit import group_starts
from discl_ray.spectrum.files import committed_files
from discl_ray.spectrum.read import open_spectrum
from discl_ray.spectrum.records import committed
from discl_ray.spectrum.verify import verify
from tests.support.spectra import LAX

pytestmark = pytest.mark.timeout(600)


def test_every_planned_image_is_there_once(spectrum_run):
    _, run = spectrum_run
    verify(run.store, run.plan)
    table = open_spectrum(run.store, LAX)
    assert Counter(table["gid"].to_pylist()) == Counter(run.plan["gid"].to_pylist())
    planned = {r["gid"]: r for r in run.plan.to_pylist()}
    for row in table.select(run.plan.column_names).to_pylist():
        assert row == planned[row["gid"]]
    assert set(committed(run.store)) == set(run.plan["shard_id"].to_pylist())
    assert len(committed(run.store)) > 1


def test_a_shard_is_one_file_and_its_rows_lie_by_source_and_level(spectrum_run):
    store = spectrum_run[1].store
    assert (
        committed_files(store)
        == store.list("spectrum", ".parquet")
        == [f"spectrum/{s}.parquet" for s in committed(store)]
    )
    for name in committed_files(store):
        table = store.read_table(name)
        assert table.schema.equals(SPECTRUM, check_metadata=True)
        rows = table.select(["sample_id", "lam_pct", "replica", "attempt"]).to_pylist()
        assert rows == sorted(rows, key=lambda row: tuple(row.values()))
        assert [NAMES[label] for label in table["label"].to_pylist()] == table[
            "class_name"
        ].to_pylist()


@given(
    st.lists(st.tuples(st.integers(1, 150), st.sampled_from([0, 10, 400])), min_size=1, max_size=12)
)
@settings(max_examples=30)
def test_a_row_group_divides_no_source_and_takes_none_when_it_is_full(sources):
    ids = np.repeat([f"s{i:02}" for i in range(len(sources))], [rows for rows, _ in sources])
    sizes = np.repeat([size for _, size in sources], [rows for rows, _ in sources])
    images = pa.array(
        [{"bytes": bytes(size) if size else None} for size in sizes], SPECTRUM.field("image").type
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("discl_ray.spectrum.commit.GROUP_BYTES", 20_000)
        starts = group_starts(pa.table({"sample_id": ids, "image": images}))
    assert starts == sorted(set(starts))
    assert starts[0] == 0

    def full(part):
        return part.sum() >= ROW_GROUP or sizes[part].sum() >= 20_000

    for begin, end in pairwise([*starts, len(ids)]):
        inside = (np.arange(len(ids)) >= begin) & (np.arange(len(ids)) < end)
        assert not set(ids[inside]) & set(ids[~inside])
        assert not full(inside & (ids != ids[end - 1]))
        assert full(inside) or end == len(ids)
