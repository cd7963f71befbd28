"""Shards are written whole, their rows by source and λ."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discl_ray.core.ids import sha256
from discl_ray.core.schema import SCORED, SPECTRUM
from discl_ray.core.storage import ROW_GROUP, Store
from discl_ray.embedded.digits import NAMES
from discl_ray.spectrum.commit import group_starts, write_shard
from discl_ray.spectrum.files import committed_files
from discl_ray.spectrum.read import open_spectrum
from discl_ray.spectrum.records import committed
from discl_ray.spectrum.verify import drop_strays
from tests.support.spectra import LAX, check_whole

pytestmark = pytest.mark.timeout(600)


def test_every_planned_image_is_there_once(spectrum_run):
    _, run = spectrum_run
    check_whole(run.store, run.plan)
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


RACES = pytest.mark.parametrize("races", [20, pytest.param(200, marks=pytest.mark.slow)])


def scored(pixels: bytes) -> pa.Table:
    """Two rows of SCORED with some bytes in place of images, as a GPU may differ in."""
    row = {"role": "train", "lam_pct": 50, "status": "ok", "label": 0, "image": {"bytes": pixels}}
    rows = [{**row, "gid": gid, "sample_id": f"of {gid}"} for gid in ("a", "b")]
    return pa.Table.from_pylist(rows, schema=SCORED)


@pytest.fixture(params=["disk", "object store"])
def run(request, tmp_path):
    """The folder of an empty run."""
    if request.param == "disk":
        return Store.at(tmp_path)
    return Store.at(request.getfixturevalue("s3_root"))


def check_committed_once(run, shard_id, *possible):
    """One of the possible images is committed, and no other file is there."""
    (file,) = committed(run)[shard_id].files
    data = run.read(file.name)
    assert (sha256(data), len(data)) == (file.sha256, file.size)
    images = {image["bytes"] for image in run.read_table(file.name)["image"].to_pylist()}
    assert len(images) == 1
    assert images <= set(possible)


@RACES
def test_of_two_that_make_one_shard_one_is_committed_and_nothing_of_the_other_stays(run, races):
    for number in range(races):
        shard_id = f"{number:04}"

        def write(pixels, shard_id=shard_id):
            write_shard(run, shard_id, scored(pixels), ["zero"])

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, (b"one", b"two")))
        check_committed_once(run, shard_id, b"one", b"two")
    assert run.list("spectrum") == committed_files(run)
    assert len(committed_files(run)) == races


@RACES
def test_of_two_that_make_the_same_bytes_both_are_content(run, races):
    for number in range(races):
        shard_id = f"{number:04}"

        def write(_, shard_id=shard_id):
            write_shard(run, shard_id, scored(b"same"), ["zero"])

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, range(2)))
        check_committed_once(run, shard_id, b"same")
    names = [f"spectrum/{number:04}.parquet" for number in range(races)]
    assert run.list("spectrum") == committed_files(run) == names


def test_what_a_writer_left_that_did_not_come_to_commit_is_not_replaced(run):
    """It might still do so; what nobody has committed is dropped when the run closes."""
    run.write("spectrum/s.parquet", b"another's")
    write_shard(run, "s", scored(b"mine"), ["zero"])
    check_committed_once(run, "s", b"mine")
    assert run.read("spectrum/s.parquet") == b"another's"
    assert len(committed_files(run)) == 1
    drop_strays(run)
    assert run.list("spectrum") == committed_files(run)


def test_a_committed_shard_is_not_written_again(run):
    write_shard(run, "s", scored(b"first"), ["zero"])
    write_shard(run, "s", scored(b"second"), ["zero"])
    check_committed_once(run, "s", b"first")
    assert run.list("spectrum") == ["spectrum/s.parquet"]


def test_a_loser_that_comes_late_keeps_no_file(run, monkeypatch):
    """Its shard is committed by somebody else while it writes its data."""
    create = Store.create

    def slow(store, name, data):
        monkeypatch.setattr(Store, "create", create)
        write_shard(run, "s", scored(b"quick"), ["zero"])
        return create(store, name, data)

    monkeypatch.setattr(Store, "create", slow)
    write_shard(run, "s", scored(b"late"), ["zero"])
    check_committed_once(run, "s", b"quick")
    assert run.list("spectrum") == ["spectrum/s.parquet"]
