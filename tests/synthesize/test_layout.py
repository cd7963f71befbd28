"""What a run writes before its first image."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from discl_ray.core.ids import sha256
from discl_ray.core.shards import Shard
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError, StorageError
from discl_ray.plan import grid
from discl_ray.synthesize import layout
from discl_ray.synthesize.layout import find_reusable, lay_out, source_groups
from discl_ray.synthesize.planned import open_planned, plan_part, sources_part
from discl_ray.synthesize.run import prepare
from tests.support.spectra import dates

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def parted(small, monkeypatch):
    """A run that is prepared, in parts of two sources each."""
    monkeypatch.setattr(grid, "BLOCK_SOURCES", 2)
    return prepare(small("plan.replicas=2", "plan.shard_steps=10"))


def parts_of(run):
    """When each file of sources and plan was last written."""
    found = dates(run.store)
    return {
        path: date
        for path, date in found.items()
        if path.parent.name in ("plan", "sources") or path.name == "shards.parquet"
    }


def test_a_directory_with_another_plan_is_refused(copy, spectrum_run):
    config, run = spectrum_run
    other = replace(prepare(config), store=copy)
    before = dates(copy)
    assert lay_out(other).plan.equals(run.plan)
    assert dates(copy) == before
    for wrong in (replace(other, fingerprint="other"), replace(other, picked=run.hard[:2])):
        with pytest.raises(IntegrityError, match="another plan"):
            lay_out(wrong)
    assert dates(copy) == before


def test_a_shard_finds_its_rows_and_its_real_images_by_number(parted):
    run = lay_out(parted)
    planned = open_planned(run.store)
    assert len(list(planned.parts())) == -(-run.hard.num_rows // 2) > 2
    plan, found = run.plan, []
    images = run.samples.with_images(run.hard)
    for row in range(planned.shards.num_rows):
        shard = Shard.of(planned.shards.slice(row, 1))
        rows = shard.plan.read(run.store)
        assert set(rows["shard_id"].to_pylist()) == {shard.shard_id}
        found.append(rows)
        real = shard.sources.read(run.store)
        wanted = images.filter(pa.compute.is_in(images["sample_id"], rows["sample_id"]))
        assert real.equals(wanted)
        for sample in real.to_pylist():
            assert sha256(sample["image"]["bytes"]) == sample["sha256"]
    assert pa.concat_tables(found).equals(plan)
    assert planned.gids().equals(plan.select(["gid"]))


def test_row_groups_of_sources_end_where_a_shards_sources_do(monkeypatch):
    monkeypatch.setattr(layout, "GROUP_BYTES", 10)
    sizes = [4, 4, 4, 4, 20, 1, 1, 1]
    images = pa.array([{"bytes": b"x" * size, "path": None} for size in sizes])
    shards = pa.table({"sources_first": [0, 2, 4, 5], "sources_rows": [3, 2, 1, 3]})
    # source 4 alone fills a group, which the shard before does not read
    assert source_groups(pa.table({"image": images}), shards) == [0, 3, 4, 5]
    several = pa.table({"sources_first": [0, 3], "sources_rows": [4, 4]})
    images = pa.array([{"bytes": b"x" * 4, "path": None} for _ in range(8)])
    # 3 is of both, so it is in a group of its own
    assert source_groups(pa.table({"image": images}), several) == [0, 3, 4, 7]
    one = pa.table({"sources_first": [0], "sources_rows": [8]})
    assert source_groups(pa.table({"image": images}), one) == [0]


def test_a_disk_that_fills_midway_is_named_and_the_run_goes_on_from_there(parted, monkeypatch):
    """Of the parts those that are whole are not written again."""
    whole = lay_out(replace(parted, store=parted.store.parent.within("generate-whole")))
    names = [sources_part(1), plan_part(1), "shards.parquet"]
    write = Store.write

    for full in names:

        def fill(store, name, data, full=full):
            if name == full:
                raise StorageError(f"{store.path(name)}: cannot be written (No space left)")
            write(store, name, data)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", fill)
            with pytest.raises(StorageError, match=full):
                lay_out(parted)
        assert open_planned(parted.store) is None
    there = parts_of(parted)
    lay_out(parted)
    after = parts_of(parted)
    assert there == {name: after[name] for name in there}
    assert there
    for number in range(len(list(open_planned(parted.store).parts()))):
        for name in (plan_part(number), sources_part(number)):
            assert parted.store.read(name) == whole.store.read(name)
    assert parted.store.read("shards.parquet") == whole.store.read("shards.parquet")


@pytest.mark.parametrize("name", [plan_part(1), sources_part(1), "shards.parquet"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_part_is_written_again_and_the_others_are_left(parted, name, damage, capsys):
    lay_out(parted)
    before, data = parts_of(parted), parted.store.read(name)
    parted.store.delete(name)
    if damage == "cut":
        parted.store.write(name, data[: len(data) // 2])
    lay_out(parted)
    assert parted.store.read(name) == data
    assert damage == "gone" or "written again" in capsys.readouterr().out
    changed = {path for path, date in parts_of(parted).items() if before[path] != date}
    assert changed == {Path(parted.store.path(name))}


def test_a_plan_of_larger_blocks_stays_as_it_is(parted, monkeypatch):
    lay_out(parted)
    before = dates(parted.store)
    monkeypatch.setattr(grid, "BLOCK_SOURCES", 1)
    lay_out(parted)
    assert dates(parted.store) == before


def test_moved_data_is_the_same_at_other_paths(tmp_path):
    from discl_ray.config import load_config
    from discl_ray.core.images import encode_image

    rng = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "data" / ("red fox", "otter")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), "png"))

    def laid_out(root):
        overrides = [f"data.root={root}", f"run.root={tmp_path / 'runs'}", "hard.below=99"]
        config = load_config("conf/imagefolder.yaml", [*overrides, "generator.allow_embedded=true"])
        run = lay_out(prepare(config))
        images = run.store.read_table(sources_part(0))["image"].to_pylist()
        return run, [image["path"] for image in images]

    run, there = laid_out(tmp_path / "data")
    assert all(there)
    shutil.move(tmp_path / "data", tmp_path / "moved")
    again, here = laid_out(tmp_path / "moved")
    assert again.store.base == run.store.base
    assert [path.replace("/data/", "/moved/") for path in there] == here


def test_nothing_is_reusable_where_no_other_run_is(parted):
    assert find_reusable(parted).num_rows == 0
