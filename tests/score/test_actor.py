import numpy as np
import pyarrow as pa
import pytest
import torch

import discl_ray.score.actor as module
from discl_ray.core.images import encode_image
from discl_ray.core.schema import MADE, PLAN, SAMPLES, SCORED, SCORES
from discl_ray.core.shards import pack, unpack
from discl_ray.core.storage import Store
from discl_ray.embedded.digits import NAMES, render, scans_of
from discl_ray.score.actor import ScoreActor
from discl_ray.score.clip import ClipScorer
from discl_ray.score.config import ScorerConfig
from tests.support.shards import row_of_sources, write_sources

PROMPTS = [f"a photo of the digit {name}" for name in NAMES]
SCANS = {f"s{scan.index}": scan for scan in scans_of((8,))[:5]}
IDS = list(SCANS)


@pytest.fixture
def run(tmp_path) -> Store:
    store = Store.at(tmp_path)
    rows = [
        {"sample_id": s, "image": {"bytes": encode_image(render(scan, "ochre"), "png")}}
        for s, scan in SCANS.items()
    ]
    schema = pa.schema([SAMPLES.field("sample_id"), SAMPLES.field("image")])
    write_sources(store, pa.Table.from_pylist(rows, schema=schema))
    return store


@pytest.fixture
def asked(monkeypatch):
    """The samples that were read from storage, read by read."""
    reads, read = [], module.read_sources

    def recording(store, wanted, place):
        reads.append(sorted(wanted))
        return read(store, wanted, place)

    monkeypatch.setattr(module, "read_sources", recording)
    return reads


def shard(*sample_ids, failed=()):
    """A packed shard with one image of each sample; `failed` ones have none."""
    rows = [
        {
            "sample_id": s,
            "filter_prompt": PROMPTS[SCANS[s].label],
            "status": "ok",
            "image": {"bytes": encode_image(render(SCANS[s], "web", 1), "png")},
        }
        for s in sample_ids
    ]
    rows += [
        {"sample_id": s, "filter_prompt": PROMPTS[SCANS[s].label], "status": "error"}
        for s in failed
    ]
    table = pa.Table.from_pylist(rows, schema=pa.schema([*PLAN, *MADE]))
    return pack(row_of_sources(len(SCANS)), table)


def scored(actor, *args, **kwargs):
    table = unpack(actor(shard(*args, **kwargs)))[1]
    assert table.schema.equals(SCORED)
    return table.to_pylist()


def test_the_scores_are_cosines_of_the_right_pairs(run):
    scorer = ClipScorer(ScorerConfig())
    texts = scorer.embed_texts(PROMPTS)
    for row in scored(ScoreActor(ScorerConfig(), PROMPTS, run), *IDS):
        scan = SCANS[row["sample_id"]]
        source, image = scorer.embed_images([render(scan, "ochre"), render(scan, "web", 1)])
        expected = {"text_sim": texts[scan.label] @ image, "image_sim": source @ image}
        expected |= {"source_text_sim": texts[scan.label] @ source}
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-5)
        similar = texts @ image
        assert row["text_rank"] == 1 + sum(similar > similar[scan.label])
        real = texts @ source
        assert row["source_text_rank"] == 1 + sum(real > real[scan.label])


def test_a_source_of_two_shards_is_read_and_embedded_once(run, asked, monkeypatch):
    actor = ScoreActor(ScorerConfig(), PROMPTS, run)
    embed, sizes = actor.scorer.embed_images, []
    monkeypatch.setattr(
        actor.scorer, "embed_images", lambda images: sizes.append(len(images)) or embed(images)
    )
    first = scored(actor, IDS[0], IDS[1], IDS[0])
    again = scored(actor, IDS[1], IDS[2])
    assert asked == [IDS[:2], [IDS[2]]]
    assert sizes == [1, 1, 3, 1, 2]
    assert first[1]["source_text_sim"] == again[0]["source_text_sim"]
    assert first[0]["source_text_sim"] == first[2]["source_text_sim"]


def test_only_sources_of_rows_with_an_image_are_read(run, asked):
    actor = ScoreActor(ScorerConfig(), PROMPTS, run)
    rows = scored(actor, IDS[0], failed=IDS[1:3])
    assert asked == [[IDS[0]]]
    for name in SCORES.names:
        assert [row[name] is None for row in rows] == [False, True, True]
    scored(actor, failed=IDS[3:])
    assert len(asked) == 1


def test_the_source_used_longest_ago_is_forgotten_first(run, asked, monkeypatch):
    monkeypatch.setattr(module, "CACHED_SOURCES", 2)
    actor = ScoreActor(ScorerConfig(), PROMPTS, run)
    for samples in (
        IDS[:2],
        IDS[:1],
        IDS[2:3],
        IDS[:1],
        IDS[1:2],
    ):  # the third drives out the second
        scored(actor, *samples)
        assert len(actor.sources) <= 2
    assert asked == [IDS[:2], IDS[2:3], IDS[1:2]]
    assert len(scored(actor, *IDS)) == len(IDS)  # a shard of more sources than are remembered


def test_a_sources_scores_do_not_depend_on_the_shards_before(run):
    torch.set_num_threads(1)
    fresh, used = ScoreActor(ScorerConfig(), PROMPTS, run), ScoreActor(ScorerConfig(), PROMPTS, run)
    for samples in (IDS[3:], IDS[1:2]):
        scored(used, *samples)
    assert scored(fresh, *IDS) == scored(used, *IDS)
    np.testing.assert_array_equal(
        np.stack([fresh.sources[s] for s in IDS]), np.stack([used.sources[s] for s in IDS])
    )
