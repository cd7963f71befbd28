import io
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from discl_ray.cluster.heartbeat import GeneratorSigns
from discl_ray.config import load_config
from discl_ray.core.images import encode_image
from discl_ray.core.schema import SAMPLES, SPECTRUM
from discl_ray.errors import ConfigError, DataError
from discl_ray.plan.config import PlanConfig, PreviewConfig
from discl_ray.plan.forecast import Speed, at_levels, forecast, pick_sources, preview_plan, wilson
from discl_ray.report.canvas import thumbnail
from discl_ray.report.forecast import preview_words
from discl_ray.report.preview import preview_sheet
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.filter import judge
from discl_ray.synthesize.run import prepare, preview_of
from tests.support.runs import ROOT


def samples(counts, *, val=1):
    rows = [
        {
            "sample_id": f"{label}-{split}-{i}",
            "label": label,
            "split": split,
            "sha256": f"{(7 * i + label) % 11:02d}",
        }
        for label, count in counts.items()
        for split, many in (("train", count), ("val", val))
        for i in range(many)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([SAMPLES.field(n) for n in rows[0]]))


@pytest.mark.parametrize(
    ("counts", "count", "taken"),
    [
        ({0: 5, 1: 1, 2: 4}, 8, {0: 4, 1: 1, 2: 3}),
        ({4: 2, 5: 2, 6: 2, 7: 2}, 8, {4: 2, 5: 2, 6: 2, 7: 2}),
        (dict.fromkeys(range(10), 3), 3, {0: 1, 3: 1, 6: 1}),
        ({0: 1, 1: 2}, 8, {0: 1, 1: 2}),
    ],
)
def test_sources_are_spread_evenly_over_the_classes_and_are_training_images(counts, count, taken):
    picked = pick_sources(samples(counts), count)
    assert Counter(picked["label"].to_pylist()) == taken
    assert set(picked["split"].to_pylist()) == {"train"}


def test_the_same_sources_are_picked_whatever_order_they_come_in():
    table = samples({0: 5, 1: 1, 2: 4})
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    assert set(pick_sources(shuffled, 6)["sample_id"].to_pylist()) == set(
        pick_sources(table, 6)["sample_id"].to_pylist()
    )


def test_a_level_without_a_step_is_left_out_and_only_the_grid_of_the_preview_remains():
    plan = PlanConfig(
        num_steps=5, replicas=9, attempts=5, until_text_sim=0.3, lams=(0.05,), shard_steps=77
    )
    small = preview_plan(plan, PreviewConfig(replicas=3))
    assert small.lams == (0.0, 0.1, 0.3, 0.5, 0.7)
    assert (small.replicas, small.attempts, small.num_steps, small.shard_steps) == (3, 1, 5, 77)
    assert preview_plan(PlanConfig(), PreviewConfig()).lams == PreviewConfig().lams
    with pytest.raises(ConfigError, match=r"preview\.lams = \[0\.7, 0\.9\].* plan\.num_steps = 2"):
        preview_plan(PlanConfig(num_steps=2, lams=(0.0,)), PreviewConfig(lams=(0.7, 0.9)))
    with pytest.raises(
        ConfigError,
        match=(
            r"preview\.lams: λ = 0\.3 and 0\.5: .* separates all levels is 3, "
            r"and from 4 up 5 \(plan\.num_steps = 4\)"
        ),
    ):
        preview_plan(PlanConfig(num_steps=4, lams=(0.0,)), PreviewConfig(lams=(0.0, 0.3, 0.5, 0.8)))


def test_wrong_levels_are_reported_with_every_other_problem():
    with pytest.raises(ConfigError) as caught:
        load_config(
            ROOT / "conf" / "digits_lt.yaml",
            ["preview.lams=[0.3,0.3,1.0]", "plan.lams=[1.5]", "preview.sources=0"],
        )
    for part in (
        "3 problems",
        "preview.lams",
        "twice",
        "λ = 1 is the real image",
        "plan.lams",
        "preview.sources = 0",
    ):
        assert part in str(caught.value)


@pytest.mark.model
def test_the_directory_is_the_previews_own_and_changes_with_what_it_shows(small):
    def directories(*overrides):
        config = small("plan.num_steps=5", *overrides)
        run = prepare(config)
        return run.store.base, preview_of(run).store.base

    full, preview = directories()
    assert Path(preview).name.startswith("preview-")
    assert Path(preview).parent == Path(full).parent
    for override in ("preview.sources=3", "preview.lams=[0,0.2]", "preview.replicas=1"):
        assert directories(override)[0] == full
        assert directories(override)[1] != preview
    for override in (
        "plan.replicas=5",
        "plan.lams=[0.1]",
        "hard.probe_sources=0",
    ):  # another full run, the same preview
        assert directories(override)[0] != full
        assert directories(override)[1] == preview
    assert directories("generator.cfg_scale=2")[1] != preview
    assert directories("generator.micro_batch=2") == (full, preview)


def test_without_a_hard_class_there_is_nothing_to_preview(small):
    config = small("hard.below=1")
    with pytest.raises(DataError, match="no class has fewer"):
        preview_of(prepare(config))


def test_values_are_interpolated_between_levels_and_hold_beyond_them():
    assert at_levels({90: 4.0, 10: 0.0}, [0, 10, 30, 90, 95]) == [0.0, 0.0, 1.0, 4.0, 4.0]


@pytest.mark.parametrize(("passes", "n"), [(15, 16), (0, 16), (16, 16), (1, 2)])
def test_the_interval_is_wilsons(passes, n):
    z, p = 1.959963984540054, passes / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    assert wilson(passes, n) == pytest.approx(expected, abs=1e-12)


def spectrum(ranks, *, side=8, config):
    """An opened preview spectrum: text_rank by λ, one replica for each.

    None is an image that broke.
    """

    def picture(lam_pct):
        return encode_image(np.full((side, side, 3), lam_pct, np.uint8), "png")

    rows = [
        {
            "sample_id": "s",
            "label": 0,
            "role": "train",
            "lam_pct": lam_pct,
            "replica": replica,
            "attempt": 0,
            "gid": f"{lam_pct}-{replica}",
            "status": "ok" if rank else "error",
            "error": None if rank else "black_or_not_finite",
            "text_rank": rank,
            "text_sim": 0.2 + 0.01 * lam_pct if rank else None,
            "source_text_sim": 0.4 if rank else None,
            "image": {"bytes": picture(lam_pct) if rank else None, "path": None},
        }
        for lam_pct, of_level in ranks.items()
        for replica, rank in enumerate(of_level)
    ]
    return judge(pa.Table.from_pylist(rows, schema=SPECTRUM), config)


def full_plan(rows_by_level, steps):
    rows = [(lam, i) for lam, many in rows_by_level.items() for i in range(many)]
    return pa.table(
        {
            "lam_pct": pa.array([lam for lam, _ in rows], pa.int32()),
            "sample_id": [f"s{i}" for _, i in rows],
            "shard_id": ["x"] * len(rows),
            "role": ["probe" if i % 10 == 9 else "train" for _, i in rows],
            "num_steps": [steps] * len(rows),
        }
    )


SPEED = Speed(steps_per_s=50.0, peak_bytes=3_000_000_000, micro_batch=2, generators=1)


def test_the_forecast_counts_by_level_of_the_full_plan():
    config = FilterConfig(threshold=0.5)
    made = spectrum({0: [1, 1, 1, 2], 50: [1, 2, 2, None]}, config=config)
    seen = forecast(made, config, full_plan({0: 100, 25: 60}, 20), generators=2, speed=SPEED)
    assert [level.lam_pct for level in seen.levels] == [0, 25, 50]
    assert [level.accepted["rank"] for level in seen.levels] == [0.75, 0.5, 0.25]
    assert [level.accepted["absolute"] for level in seen.levels] == [0.0, 0.375, 0.75]
    assert [(level.shown, level.planned) for level in seen.levels] == [(4, 100), (0, 60), (4, 0)]
    assert seen.levels[0].low == wilson(3, 4)[0]
    assert seen.levels[1].low is None
    sizes = [len(image["bytes"] or b"") for image in made["image"].to_pylist()]
    means = sum(sizes[:4]) / 4, sum(sizes[4:]) / 4  # an image that broke is stored as nothing
    assert seen.gigabytes == pytest.approx((100 * means[0] + 60 * (means[0] + means[1]) / 2) / 1e9)
    assert seen.kept == pytest.approx(90 * 0.75 + 54 * 0.5)  # probes are not filtered
    assert seen.seconds_per_image == pytest.approx(20 / 50)
    assert seen.hours == pytest.approx(160 * 20 / (50 * 2) / 3600)


def test_generators_that_did_nothing_say_nothing_of_speed():
    signs = GeneratorSigns(phase="working", steps=30, seconds=2.0, peak_bytes=5, micro_batch=8)
    idle = GeneratorSigns(phase="idle", steps=0, seconds=0.0, peak_bytes=9, micro_batch=4)
    assert Speed.of([signs, idle, replace(signs, steps=10)]) == Speed(
        steps_per_s=10.0, peak_bytes=5, micro_batch=8, generators=2
    )
    assert Speed.of([idle]) is None
    assert Speed.of([]) is None


def test_the_words_say_what_was_not_measured(small):
    config = small("plan.attempts=3", "plan.until_text_sim=0.3", "generator.actors=2")
    made = spectrum({0: [1, 1], 50: [1, 2]}, config=config.filter)
    plan = full_plan({0: 4, 25: 2}, 20)
    said = preview_words(forecast(made, config.filter, plan, generators=2, speed=SPEED), config)
    for part in ("interpolated", "first of up to 3 attempts", "measured while 1 worked"):
        assert part in said
    unmeasured = preview_words(
        forecast(made, config.filter, plan, generators=2, speed=None), config
    )
    assert "not measured" in unmeasured


def test_the_sheet_shows_what_broke_and_every_filter():
    config = FilterConfig(mode="quantile", quantile=0.5)
    made = spectrum({0: [1, None], 50: [3, 1]}, config=config)
    real = {"bytes": encode_image(np.zeros((8, 12, 3), np.uint8), "png"), "path": None}
    source = {
        "sample_id": "s",
        "image": real,
        "label": 0,
        "class_name": "yellow garden spider",
        "split": "train",
    }
    sources = pa.Table.from_pylist([source], schema=SAMPLES)
    first = preview_sheet(made, sources, config)
    assert Image.open(io.BytesIO(first)).size[0] >= 3 * 96
    assert first == preview_sheet(made, sources, config)
    assert first != preview_sheet(made, sources, FilterConfig(mode="rank"))


def test_a_thumbnail_keeps_proportions():
    wide = thumbnail(encode_image(np.zeros((8, 16, 3), np.uint8), "png"), 32)
    dark = np.asarray(wide).sum(axis=2) == 0
    assert wide.size == (32, 32)
    assert dark.sum() == 32 * 16


@pytest.mark.timeout(300)
def test_a_preview_is_made_once_and_leaves_the_full_run_alone(
    small, ray_local, capsys, monkeypatch
):
    from discl_ray.commands.preview import job
    from discl_ray.synthesize import rounds

    asked = (
        "preview.sources=3",
        "generator.threads=1",
        "generator.micro_batch=8",
        "plan.num_steps=5",
    )
    config = small(*asked)
    full = prepare(config)
    job(config)
    first = capsys.readouterr().out
    (folder,) = Path(config.run.root).glob(
        "digits_lt/[!s]*"
    )  # nothing but the samples: the full run was not touched
    store = preview_of(full).store
    assert str(folder) == store.base
    made = store.read_table("plan/000000.parquet", ["lam_pct"])["lam_pct"].unique().to_pylist()
    assert made == [0, 10, 30, 50, 70]  # 0.9 leaves no step of 5
    assert store.read_json("MANIFEST.json")["rows"] == 3 * 5 * 2
    assert Image.open(io.BytesIO(store.read("preview.png"))).size[0] > 6 * 96
    figures = store.read_json("preview.json")
    assert [(level["lam_pct"], level["shown"]) for level in figures["levels"]] == [
        (p, 6) for p in (0, 10, 30, 50, 70)
    ]
    assert figures["images"] == full.plan.num_rows
    assert sum(level["planned"] for level in figures["levels"]) == full.plan.num_rows
    assert "next: make generate" in first

    monkeypatch.setattr(rounds, "run_graph", lambda *_: pytest.fail("started the generator"))
    before = {
        p: p.stat().st_mtime_ns for p in folder.rglob("*.parquet") if p.name != "verdicts.parquet"
    }
    words = first[first.index("accepted") :]
    job(config)
    assert capsys.readouterr().out.endswith(words)
    assert store.read_json("preview.json") == figures
    measured = {"steps_per_s": 50.0, "peak_bytes": 2_000_000_000, "micro_batch": 8, "generators": 1}
    store.write("preview.json", json.dumps({**figures, "speed": measured}).encode())
    job(
        small(*asked, "plan.replicas=3", "filter.mode=absolute")
    )  # another full run, the same images
    again = capsys.readouterr().out
    assert "steps at 50/s" in again
    assert "absolute*" in again
    assert {p: p.stat().st_mtime_ns for p in before} == before
    reasons = store.read_table("verdicts.parquet", ["reason"])["reason"].to_pylist()
    assert "rank" not in reasons  # another filter's
