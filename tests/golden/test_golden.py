"""Runs made earlier keep their names, and are found, opened and trained on."""

import importlib.metadata
import json
import shutil
from dataclasses import replace

import pytest
import yaml

from discl_ray.config import load_config
from discl_ray.core.images import decode_image
from discl_ray.core.lam import REAL
from discl_ray.core.settings import Settings, added, identity
from discl_ray.core.storage import Store
from discl_ray.curriculum.controller import LocalController
from discl_ray.experiments.rows import plan_run
from discl_ray.spectrum.files import committed_files
from discl_ray.spectrum.open import Spectrum, check_complete
from discl_ray.spectrum.read import open_spectrum
from discl_ray.spectrum.records import committed
from discl_ray.spectrum.reuse import FILE, Reuse
from discl_ray.synthesize.layout import find_reusable, lay_out
from discl_ray.synthesize.rounds import generate
from discl_ray.synthesize.run import prepare
from discl_ray.train.checkpoint import load_checkpoint
from discl_ray.train.images.table import build_table, open_table
from discl_ray.train.job import make_job
from discl_ray.train.loop import loop
from tests.golden.identity import GOLDEN, HERE, changes, compute

OLD = HERE / "old_run"
GENERATED, TRAINED = "generate-a0b722c5", "train-374d25c5-s0"
VERSIONS = {
    "torch": "2.14.1",
    "diffusers": "0.42.1",
    "transformers": "5.23.0",
    "pillow": "13.0.0",
    "open_clip_torch": "3.3.0",
}
"""Of the libraries that made the old run: they are in its name."""


def test_ids_seeds_and_hashes_are_what_they_were():
    assert changes(json.loads(GOLDEN.read_text()), json.loads(json.dumps(compute()))) == []


def test_an_added_field_enters_a_hash_only_where_it_differs_from_what_was_before():
    class Before(Settings):
        number: int = 1

    class After(Settings):
        number: int = 1
        how: str = added("new", before="old")

    assert identity(After(how="old")) == identity(Before())
    assert identity(After()) == {"number": 1, "how": "new"}
    assert identity(After(number=2, how="old")) != identity(Before())


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    """(configuration, its folder's store) of a copy of the run of 155df47."""
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: VERSIONS.get(name) or version(name)
    )
    shutil.copytree(OLD, tmp_path / "runs")
    recorded = yaml.safe_load((OLD / "digits_lt" / GENERATED / "config.yaml").read_text())
    file = tmp_path / "recorded.yaml"
    file.write_text(yaml.safe_dump(recorded))
    config = load_config(file, [f"run.root={tmp_path / 'runs'}"])
    return config, Store.at(tmp_path / "runs" / "digits_lt" / GENERATED)


def test_the_old_spectrum_is_found_and_is_complete(old_run, monkeypatch):
    config, store = old_run
    monkeypatch.setattr(
        "discl_ray.synthesize.rounds.ray_session",
        lambda **_: pytest.fail("started Ray: images were missing"),
    )
    run = prepare(config)
    assert run.store.base == store.base
    check_complete(run.store)
    assert generate(lay_out(run)) == []
    spectrum = open_spectrum(store, config.filter)
    assert (spectrum.num_rows, sum(spectrum["kept"].to_pylist())) == (28, 25)


@pytest.mark.slow
def test_an_unfinished_run_of_the_old_layout_goes_on(old_run, ray_local, tmp_path):
    """The shard that is left is made in today's layout beside the others.

    Both are opened, taken over and trained on.
    """
    config, store = old_run
    before = {
        row["gid"]: row
        for row in open_spectrum(store, config.filter, ["image", "file"]).to_pylist()
    }
    shard, record = min(committed(store).items())
    store.delete(f"commits/{shard}.json")
    store.delete("MANIFEST.json")
    assert committed_files(store) != store.list("spectrum", ".parquet")
    run = lay_out(prepare(config))
    assert run.store.base == store.base
    generate(run)
    check_complete(store)
    assert store.list("spectrum", ".parquet") == [f"spectrum/{shard}.parquet"]
    gone = {file.name for file in record.files}
    assert not any(store.exists(name) for name in gone)  # outsiders would see its images twice
    after = open_spectrum(store, config.filter, ["image", "file", "class_name"]).to_pylist()
    assert [row["gid"] for row in after] == list(before)
    for row in after:
        again = before[row["gid"]]["file"] in gone
        assert row["file"] == (f"spectrum/{shard}.parquet" if again else before[row["gid"]]["file"])
        assert (row["class_name"] is not None) == again
        images = [row["image"]["bytes"], before[row["gid"]]["image"]["bytes"]]
        if not again:
            assert images[0] == images[1]
        # the CPU that made the old run may have rounded otherwise
        pixels = [decode_image(data).astype(int) for data in images]
        assert abs(pixels[0] - pixels[1]).max() <= 1
    found = find_reusable(replace(run, store=store.within("../another")))
    assert set(found["gid"].to_pylist()) == set(before)
    shutil.copytree(store.base, tmp_path / "runs" / "digits_lt" / "another")
    other = Store.at(tmp_path / "runs" / "digits_lt" / "another")
    other.write_table(FILE, found)
    assert {gid: image.data for gid, image in Reuse.open(other).take(before).items()} == {
        row["gid"]: row["image"]["bytes"] for row in after
    }
    table = open_table(build_table(Spectrum.open(store), config.filter, config.train.image_size))
    assert (table.lam_pct < REAL).sum() == sum(
        row["kept"] or row["role"] == "probe" for row in after
    )  # probes are not filtered


def test_the_old_spectrum_is_trained_on_and_the_old_checkpoint_goes_on(old_run, tmp_path):
    config, store = old_run
    recorded = yaml.safe_load((OLD / "digits_lt" / TRAINED / "config.yaml").read_text())
    file = tmp_path / "trained.yaml"
    file.write_text(yaml.safe_dump(recorded))
    config = load_config(file, [f"run.root={config.run.root}"])
    assert plan_run(config, Spectrum.open(store)).store.name == TRAINED
    table = open_table(build_table(Spectrum.open(store), config.filter, config.train.image_size))
    job = make_job(
        Spectrum.open(store),
        seed=config.seed,
        data=config.data,
        train=config.train,
        curriculum=config.curriculum,
    )
    state = load_checkpoint(OLD / "digits_lt" / TRAINED / "checkpoint_epoch_3")
    reports = []
    loop(
        job,
        table,
        LocalController(job.curriculum, job.levels, job.seed),
        reports.append,
        resume=state,
    )
    assert [report.epoch for report in reports] == [4]
    fresh = []
    loop(job, table, LocalController(job.curriculum, job.levels, job.seed), fresh.append, epochs=1)
    assert fresh[0].metrics["lam"] in (0.0, 0.5, 1.0)
