import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from discl_ray.core.ids import sha256
from discl_ray.core.images import encode_image
from discl_ray.core.schema import MADE, PLAN, SAMPLES
from discl_ray.core.shards import Shard, unpack
from discl_ray.core.storage import Store
from discl_ray.embedded.digits import render, scans_of
from discl_ray.generate.actor import GenerateActor
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.crash_journal import FOLDER, CrashJournal
from tests.support.shards import shard_row, write_sources

STEPS = 4
WHOLE = render(scans_of((8,))[0], "ochre")
PNGS = {"whole": encode_image(WHOLE, "png"), "tall": encode_image(WHOLE[:, :16], "png")}
HASHES = {name: sha256(data) for name, data in PNGS.items()}


def source(name, data, shape=(32, 32)):
    return {
        "sample_id": name,
        "image": {"bytes": data, "path": None},
        "label": 3,
        "class_name": "three",
        "split": "train",
        "domain": "d",
        "group": "g",
        "width": shape[1],
        "height": shape[0],
        "sha256": HASHES.get(name, name),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    store = Store.at(tmp_path_factory.mktemp("run"))
    rows = [
        source("whole", PNGS["whole"]),
        source("tall", PNGS["tall"], (32, 16)),
        source("cut", PNGS["whole"][: len(PNGS["whole"]) // 2]),
        source("text", b"not an image"),
        source("gone", None) | {"image": {"bytes": None, "path": "nowhere.png"}},
        source("other", PNGS["tall"]),
    ]
    write_sources(store, pa.Table.from_pylist(rows, schema=SAMPLES))
    return store


def plan_of(names, steps=STEPS):
    rows = [
        {
            "gid": f"{name}-{n}",
            "shard_id": "s",
            "sample_id": name,
            "label": 3,
            "role": "train",
            "lam_pct": 100 - 25 * n,
            "replica": 0,
            "attempt": 0,
            "prompt": "a photo of the digit three",
            "negative_prompt": "",
            "filter_prompt": "x",
            "seed": 5,
            "num_steps": n,
            "source_sha256": HASHES.get(name, name),
        }
        for name in names
        for n in (steps, 1)
    ]
    return pa.Table.from_pylist(rows, schema=PLAN)


def make(run, plan, **config):
    actor = GenerateActor(GeneratorConfig(micro_batch=2, decode_batch=2, **config), STEPS, run)
    row, table = unpack(actor(shard_row(run, plan)))
    actor.engine.close()
    assert Shard.of(row).shard_id == "s"
    assert table.column_names == [*PLAN.names, *MADE.names]
    assert table.select(PLAN.names).equals(plan)
    assert run.list(FOLDER) == []
    return {row["gid"]: row for row in table.to_pylist()}


def pixels(row):
    return np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))


def test_sources_that_cannot_be_read_become_rows_with_a_reason_and_the_rest_is_made(run):
    rows = make(run, plan_of(["whole", "cut", "text", "gone", "other"]))
    assert {g: (r["status"], r["error"]) for g, r in rows.items() if not g.startswith("whole")} == {
        "cut-4": ("error", "truncated"),
        "cut-1": ("error", "truncated"),
        "text-4": ("error", "not_an_image"),
        "text-1": ("error", "not_an_image"),
        "gone-4": ("error", "unreadable"),
        "gone-1": ("error", "unreadable"),
        "other-4": ("error", "changed"),
        "other-1": ("error", "changed"),
    }
    assert all(rows[g]["image"]["bytes"] is None for g in rows if not g.startswith("whole"))
    alone = make(run, plan_of(["whole"]))
    for gid in ("whole-4", "whole-1"):
        assert rows[gid]["status"] == "ok"
        assert rows[gid]["image"] == alone[gid]["image"]
        assert rows[gid]["micro_batch"] == 2


def test_a_source_of_another_shape_gets_images_of_its_shape_back(run):
    assert {pixels(r).shape for r in make(run, plan_of(["tall"])).values()} == {(32, 16, 3)}
    assert {pixels(r).shape for r in make(run, plan_of(["tall"]), fit="stretch").values()} == {
        (32, 32, 3)
    }


def test_the_codec_and_its_quality_are_the_configured_ones(run):
    sizes = []
    for quality in (40, 95):
        row = make(run, plan_of(["whole"]), codec="jpeg", quality=quality)["whole-4"]
        assert Image.open(io.BytesIO(row["image"]["bytes"])).format == "JPEG"
        sizes.append(len(row["image"]["bytes"]))
    assert sizes[0] < sizes[1]
    lossless = make(run, plan_of(["whole"]), codec="webp")["whole-4"]
    np.testing.assert_array_equal(
        pixels(lossless), pixels(make(run, plan_of(["whole"]))["whole-4"])
    )


def test_text_only_changes_what_takes_all_steps_and_nothing_else(run):
    usual, pure = make(run, plan_of(["whole"])), make(run, plan_of(["whole"]), text_only=True)
    assert usual["whole-1"]["image"] == pure["whole-1"]["image"]
    assert usual["whole-4"]["image"] != pure["whole-4"]["image"]


def test_a_row_given_up_is_crashed_and_its_neighbours_are_made(run):
    plan = plan_of(["whole", "tall"])
    expected = make(run, plan)
    journal = CrashJournal(run, "s", tuple(plan["gid"].to_pylist()), deaths=2)
    journal.begin(["tall-4"])  # alone, at the shard's third death
    rows = make(run, plan)
    assert (
        rows["tall-4"]["status"],
        rows["tall-4"]["error"],
        rows["tall-4"]["image"]["bytes"],
    ) == ("crashed", "crashed", None)
    for gid in expected.keys() - {"tall-4"}:
        assert rows[gid]["image"] == expected[gid]["image"]


def test_a_shard_under_suspicion_is_made_in_parts_with_the_same_bytes(run):
    plan = plan_of(["whole", "tall"])
    expected = make(run, plan)
    CrashJournal(run, "s", tuple(plan["gid"].to_pylist())).begin(plan["gid"].to_pylist())
    rows = make(run, plan)
    assert {g: r["image"] for g, r in rows.items()} == {g: r["image"] for g, r in expected.items()}
