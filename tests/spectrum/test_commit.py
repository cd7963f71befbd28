"""Shards are written whole, found damaged or missing, and made again."""

import errno
from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discl_ray.core.schema import SPECTRUM
from discl_ray.core.storage import ROW_GROUP, Store
from discl_ray.embedded.digits import NAMES
from discl_ray.errors import IntegrityError, UnreadableError
from discl_ray.spectrum.commit import (
    committed,
    committed_files,
    drop_damaged,
    drop_strays,
    group_starts,
    verify,
)
from discl_ray.spectrum.read import open_spectrum
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


def test_what_no_commit_names_is_dropped(copy):
    before = open_spectrum(copy, LAX)
    copy.write_table("spectrum/lam_pct=50/ffff.parquet", before.slice(0, 1))
    copy.write_table("spectrum/ffff.parquet", before.slice(0, 1))
    copy.write("spectrum/note.txt", b"of a user")
    drop_strays(copy)
    assert copy.list("spectrum", ".parquet") == committed_files(copy)
    assert copy.list("spectrum/lam_pct=50") == []
    assert copy.exists("spectrum/note.txt")
    assert open_spectrum(copy, LAX).equals(before)


def test_a_changed_byte_is_found(copy, spectrum_run):
    record = next(iter(committed(copy).values()))
    file = Path(copy.path(record.files[0].name))
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"bytes differ from its commit") as caught:
        verify(copy, spectrum_run[1].plan)
    assert str(file) in str(caught.value)
    assert record.shard_id in str(caught.value)


def test_shards_that_are_damaged_are_made_again_and_others_are_whole(copy, capsys):
    """Not where the disk fails: what it does not give may be whole."""
    flipped, gone, garbled, *rest = sorted(committed(copy))
    assert drop_damaged(copy) == {flipped, gone, garbled, *rest}
    assert capsys.readouterr().out == ""
    file = Path(copy.path(f"spectrum/{flipped}.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    copy.delete(f"spectrum/{gone}.parquet")
    copy.write(f"commits/{garbled}.json", b'{"shard_id": "another", "files": []}')
    assert drop_damaged(copy) == set(rest)
    (line,) = capsys.readouterr().out.splitlines()
    assert "its images are made again (likewise 2 more shards)" in line
    assert sorted(committed(copy)) == rest


def test_a_disk_that_fails_costs_no_shard(copy, monkeypatch):
    before = sorted(committed(copy))

    def read(self, name):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Store, "read", read)
    with pytest.raises(UnreadableError):
        drop_damaged(copy)
    monkeypatch.undo()
    assert sorted(committed(copy)) == before


def test_a_missing_commit_is_found_and_its_rows_do_not_exist(copy, spectrum_run):
    plan = spectrum_run[1].plan
    shard_id, record = next(iter(committed(copy).items()))
    Path(copy.path(f"commits/{shard_id}.json")).unlink()
    lost = sum(file.rows for file in record.files)
    with pytest.raises(IntegrityError, match=f"{lost} planned images are not committed"):
        verify(copy, plan)
    assert open_spectrum(copy, LAX).num_rows == plan.num_rows - lost
    assert Path(copy.path(record.files[0].name)).exists()


def test_foreign_and_doubled_rows_are_found(copy, spectrum_run):
    plan = spectrum_run[1].plan
    with pytest.raises(IntegrityError, match="1 committed images are not in the plan"):
        verify(copy, plan.slice(1))
    record = next(iter(committed(copy).values()))
    copy.write_json("commits/ffff.json", asdict(replace(record, shard_id="ffff")))
    with pytest.raises(IntegrityError, match="committed twice"):
        verify(copy, plan)
