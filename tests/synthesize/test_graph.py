"""A shard on its way through generator and scorer."""

import shutil

import pyarrow as pa
import pytest

from discl_ray.cluster.demand import Cluster, Node, demand
from discl_ray.core.schema import SCORED
from discl_ray.core.storage import Store
from discl_ray.process.progress import Progress
from discl_ray.spectrum.fold import Folding
from discl_ray.synthesize.checks import stages
from discl_ray.synthesize.graph import follow, staffed
from tests.support.shards import SOURCES_PART, shard_row, write_sources

pytestmark = pytest.mark.timeout(600)


def test_a_source_that_cannot_be_decoded_becomes_rows_with_a_reason(copy, spectrum_run, tmp_path):
    from discl_ray.core.shards import Shard, unpack
    from discl_ray.generate.actor import GenerateActor
    from discl_ray.score.actor import ScoreActor

    config, run = spectrum_run
    sources = copy.read_table(SOURCES_PART)
    intact = Store.at(shutil.copytree(run.store.base, tmp_path / "intact"))
    rows = sources.to_pylist()
    rows[0]["image"]["bytes"] = rows[0]["image"]["bytes"][:300]
    rows[1]["image"]["bytes"] = b"no image"
    write_sources(copy, pa.Table.from_pylist(rows, schema=sources.schema))
    plan = run.plan.filter(pa.compute.is_in(run.plan["sample_id"], sources["sample_id"][:3]))
    generator = config.generator.model_copy(update={"micro_batch": 4, "threads": 1})
    whole = GenerateActor(generator, config.plan.num_steps, intact)(shard_row(intact, plan))
    made = GenerateActor(generator, config.plan.num_steps, copy)(shard_row(copy, plan))
    row, table = unpack(ScoreActor(config.scorer, run.class_prompts, copy)(made))
    assert Shard.of(row).shard_id == "s"
    assert table.schema.equals(SCORED)
    expected = dict(
        zip(sources["sample_id"].to_pylist(), ["truncated", "not_an_image", None], strict=False)
    )
    for row in table.to_pylist():
        reason = expected[row["sample_id"]]
        assert (row["status"], row["error"]) == (("error", reason) if reason else ("ok", None))
        values = (row["image"]["bytes"], row["text_sim"], row["image_sim"], row["source_text_sim"])
        assert [value is None for value in values] == [reason is not None] * 4
    good = [row["gid"] for row in table.to_pylist() if row["status"] == "ok"]
    with_broken, without = (
        {r["gid"]: r["image"]["bytes"] for r in unpack(m)[1].to_pylist()} for m in (made, whole)
    )
    assert good
    assert all(
        with_broken[gid] == without[gid] for gid in good
    )  # the neighbours of a broken image are as they were


def test_a_job_s_workers_get_numbers_for_auto(small):
    config = small("generator.actors=auto", "scorer.actors=auto")
    crew = demand(stages(config), Cluster((Node(cpus=4),)))
    numbered = staffed(config, crew)
    assert numbered.generator.actors == crew.parts[0].actors >= 1
    assert numbered.scorer.actors == crew.parts[1].actors >= 1
    assert numbered.plan == config.plan


class Executed:
    """What Ray Data gives: a row for each committed shard."""

    def iter_rows(self):
        yield {"rows": 3, "failed": 0, "micro_batch": 8}
        yield {"rows": 2, "failed": 1, "micro_batch": 4}


def test_each_committed_shard_is_counted_and_noted_for_folding(tmp_path, capsys):
    noted = []

    class Noting(Folding):
        def note(self, shards: int = 1) -> None:
            noted.append(shards)

    progress = Progress(5, "images", live=False)
    follow(Executed(), progress, Noting(Store.at(tmp_path)), 8)
    assert progress.done == 5
    assert noted == [1, 1]
    assert "generator.micro_batch=4" in capsys.readouterr().out
