"""A run that an earlier version laid out keeps its two files, and goes on with them."""

from dataclasses import replace

import pytest

from discl_ray.core.shards import Shard, unpack
from discl_ray.errors import IntegrityError
from discl_ray.plan.grid import plan_of_sources
from discl_ray.spectrum.open import Spectrum
from discl_ray.synthesize import rounds
from discl_ray.synthesize.layout import lay_out
from discl_ray.synthesize.old_layout import check_whole_plan, write_whole_plan, write_whole_sources
from discl_ray.synthesize.planned import open_planned
from discl_ray.synthesize.run import prepare
from tests.support.spectra import dates

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def old(small, monkeypatch):
    """A run laid out as before, whose plan would be in several parts today."""
    monkeypatch.setattr("discl_ray.plan.grid.BLOCK_SOURCES", 2)
    run = prepare(small("plan.replicas=2", "plan.shard_steps=20"))
    run.store.write_table("sources.parquet", run.samples.with_images(run.hard))
    run.store.write_table("plan.parquet", plan_of_sources(run.hard, run.grid))
    return run


def test_it_keeps_its_plan_and_nothing_is_written_beside_it(old):
    before = dates(old.store)
    lay_out(old)
    assert {path: date for path, date in dates(old.store).items() if path in before} == before
    assert not old.store.list("plan")
    assert not old.store.exists("shards.parquet")
    planned = open_planned(old.store)
    plan = plan_of_sources(old.hard, old.grid)
    assert planned.gids().equals(plan.select(["gid"]))
    assert planned.shards["shard_id"].to_pylist() == plan["shard_id"].unique().to_pylist()
    assert planned.shards["shard_id"].to_pylist() != old.plan["shard_id"].unique().to_pylist()
    with pytest.raises(IntegrityError, match="another plan"):
        check_whole_plan(replace(old, fingerprint="other"))


@pytest.mark.parametrize("name", ["plan.parquet", "sources.parquet"])
def test_a_damaged_file_is_written_again_as_it_was(old, name):
    data = old.store.read(name)
    old.store.write(name, data[: len(data) // 2])
    lay_out(old)
    assert old.store.read(name) == data


def test_its_two_files_are_written_as_the_earlier_version_did(old):
    kept = {name: old.store.read(name) for name in ("plan.parquet", "sources.parquet")}
    for name in kept:
        old.store.delete(name)
    write_whole_plan(old)
    write_whole_sources(old)
    assert {name: old.store.read(name) for name in kept} == kept


def test_a_shards_images_are_the_same_bytes_in_either_layout(old, spectrum_run):
    from discl_ray.generate.actor import GenerateActor

    lay_out(old)
    new = lay_out(replace(old, store=old.store.parent.within("generate-new")))
    made = []
    for run in (old, new):
        shards = open_planned(run.store).shards
        actor = GenerateActor(run.config.generator, run.config.plan.num_steps, run.store)
        rows = {}
        for row in range(2):
            shard = shards.slice(row, 1)
            packed, table = unpack(actor(shard))
            assert (Shard.of(packed).sources is None) == (run is old)
            rows |= {r["gid"]: r["image"]["bytes"] for r in table.to_pylist()}
        actor.engine.close()
        made.append(rows)
    both = made[0].keys() & made[1].keys()
    assert both
    assert {gid: made[0][gid] for gid in both} == {gid: made[1][gid] for gid in both}
    assert all(made[0].values())


def test_the_next_round_of_a_run_of_an_earlier_version(copy, spectrum_run, monkeypatch):
    """What fell short is planned in today's parts; an earlier version's damaged file as it was."""
    config, run = spectrum_run
    update = {"attempts": 2, "until_text_sim": 1.0}
    tried = config.model_copy(update={"plan": config.plan.model_copy(update=update)})
    again = replace(run, config=tried, store=copy)
    today = rounds.round_plan(again, 1)
    assert today.rows == run.plan.num_rows
    assert today.shards["sources"].null_count == 0
    for name in [*copy.list("plan-1"), "shards-1.parquet"]:
        copy.delete(name)
    copy.write_table("plan.parquet", plan_of_sources(run.hard, run.grid))
    copy.delete("shards.parquet")
    before = rounds.round_plan(again, 1)
    assert before.gids().equals(today.gids())
    assert before.shards["sources"].null_count == before.shards.num_rows
    copy.write("plan-1.parquet", b"PAR1")
    remade = rounds.round_plan(again, 1)
    rows = copy.read_table("plan-1.parquet")
    assert rows["sample_id"].to_pylist() == sorted(rows["sample_id"].to_pylist())
    assert sorted(remade.gids()["gid"].to_pylist()) == sorted(today.gids()["gid"].to_pylist())
    assert (
        Spectrum.open(run.store).sources()["sample_id"].to_pylist()
        == run.hard["sample_id"].to_pylist()
    )
