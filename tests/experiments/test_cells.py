"""A comparison on the tiny spectrum: every way of reading weights, and that nothing is computed or opened twice."""

import io

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from PIL import Image

from discl_ray.config import with_values
from discl_ray.core.lam import REAL
from discl_ray.errors import ConfigError, IntegrityError
from discl_ray.experiments import cells as compare
from discl_ray.experiments import controls
from discl_ray.experiments.cells import compare_seed, difference, openings, read_cell
from discl_ray.experiments.controls import pretrain, retrieve
from discl_ray.experiments.footnotes import synthetic_images_of
from discl_ray.experiments.rows import CE, changed, heading, plan_run, row, strategy_name, table_of
from discl_ray.experiments.stages import (
    check_kept,
    check_points,
    check_stages,
    passed,
    probe_line,
    supplies,
)
from discl_ray.experiments.statistics import Interval
from discl_ray.experiments.tables import LONG_TAIL, LOW_QUALITY, TABLES, ZERO_SHOT_SCORER
from discl_ray.plan.prompts import load_prompts
from discl_ray.report.comparison import gap_picture, markdown, picture
from discl_ray.report.history import history_picture, history_table, within_one_se
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.images.table import open_table

ROWS = (
    CE,
    row("adjusted", "real_only", read="post_hoc"),
    row("averaged", "diverse_to_specific", read="ensemble"),
    row("adaptive", "adaptive"),
    row("web", "all_level", curriculum__levels=(0.0,), web="retrieved"),
    row("pretrained", "real_only", web="pretrained"),
    ZERO_SHOT_SCORER,
)
COLUMNS = LONG_TAIL.columns


@pytest.fixture(scope="module")
def small(spectrum_run, tmp_path_factory):
    """(config, spectrum): a run root of its own, in which the tiny spectrum is a link."""
    config, prepared = spectrum_run
    root = tmp_path_factory.mktemp("compare")
    (root / "digits_lt").mkdir()
    for path in prepared.store.local.parent.iterdir():
        (root / "digits_lt" / path.name).symlink_to(path)
    values = {
        "run.root": str(root),
        "train.width": 4,
        "train.epochs": 3,
        "curriculum.epochs": 2,
        "train.start_steps": 4,
    }
    config = with_values(config, values | {"train.batch": 8, "train.eval_every": 3})
    return config, Spectrum.open(
        type(prepared.store).at(root / "digits_lt" / prepared.store.local.name)
    )


def test_rows_are_trained_once_read_in_their_ways_and_opened_once(small, monkeypatch) -> None:
    monkeypatch.setattr(controls, "POOL", 200)
    config, spectrum = small
    trained: list[str] = []
    real = compare.train_in_process
    monkeypatch.setattr(
        compare,
        "train_in_process",
        lambda p, t, s: (trained.append(p.config.curriculum.strategy), real(p, t, s))[1],
    )
    compare_seed(config, spectrum, ROWS)
    # two starts (one of them after the web), then CE once for two rows, and the others
    assert sorted(trained) == ["adaptive", "all_level", "diverse_to_specific", *["real_only"] * 4]
    compare_seed(config, spectrum, ROWS)
    assert len(trained) == 7
    cells = {config.seed: {spec.label: read_cell(config, spectrum, spec, COLUMNS) for spec in ROWS}}
    assert dict(openings(cells)) == {1: len(ROWS)}
    seen = {spec.label: synthetic_images_of(spec, cells) for spec in ROWS}
    assert [seen[label] for label in ("CE", "adjusted", "pretrained", ZERO_SHOT_SCORER.label)] == [
        "0"
    ] * 4
    assert int(seen["averaged"].replace(",", "")) > 0
    assert seen["web"].startswith("0, and ")
    rows = cells[config.seed]
    assert rows["adjusted"].read == {"tau": 1.0}
    assert 0 <= rows["averaged"].read["alpha"] <= 1
    assert rows[ZERO_SHOT_SCORER.label].history == []
    label, zero_shot, _ = rows[ZERO_SHOT_SCORER.label].predicted["top1", "overall"]
    assert (label == zero_shot).mean() > 0.3  # it knows digits, though not this look
    assert within_one_se(rows["adaptive"].history) is not None
    assert {e["images"] for spec in ROWS for e in rows[spec.label].history} == {
        rows["CE"].history[0]["images"]
    }
    gain = difference(cells, "CE", "CE", ("top1", "overall"))
    assert gain == (0, 0, 0)


DAMAGED = (
    "test_predictions.parquet",
    "metrics.parquet",
    "read.json",
    "history.json",
    "model.safetensors",
)


@pytest.mark.parametrize("damage", ["gone", "garbled"])
def test_a_cell_of_which_a_file_is_damaged_is_computed_again(small, damage, capsys) -> None:
    config, spectrum = small
    compare_seed(config, spectrum, [CE])
    cell = read_cell(config, spectrum, CE, COLUMNS)
    run = compare.run_of(plan_run(CE.of(config), spectrum), CE).local
    paths = [run / name if (run / name).exists() else run / CE.read / name for name in DAMAGED]
    for path in paths:
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(b"\xff" + np.random.default_rng(0).bytes(199))
        if path == paths[-1]:  # the weights, which only a cell that is not finished reads
            (run / CE.read / "metrics.parquet").unlink()
        capsys.readouterr()
        compare_seed(config, spectrum, [CE])
        said = capsys.readouterr().out
        found = read_cell(config, spectrum, CE, COLUMNS)
        assert found.history == cell.history
        for column in COLUMNS:
            assert all(
                (a == b).all()
                for a, b in zip(found.predicted[column], cell.predicted[column], strict=True)
            )
        assert damage == "gone" or f"{path}: is cut short or garbled" in said


def test_a_damaged_ledger_is_named_and_one_that_is_gone_begun_again(small) -> None:
    config, spectrum = small
    compare_seed(config, spectrum, [CE])
    ledger = compare.cell_store(plan_run(CE.of(config), spectrum), CE).local / "test_ledger.jsonl"
    ledger.write_bytes(b"\xff")
    compare_seed(config, spectrum, [CE])
    with pytest.raises(
        IntegrityError,
        match=rf"{ledger}: is cut short or garbled .*; delete it and run the command again",
    ):
        read_cell(config, spectrum, CE, COLUMNS)
    ledger.unlink()
    compare_seed(config, spectrum, [CE])
    assert read_cell(config, spectrum, CE, COLUMNS).openings == 1


def test_retrieved_web_images_stand_in_for_as_many_synthetic_ones(small, monkeypatch) -> None:
    monkeypatch.setattr(controls, "POOL", 400)
    config, spectrum = small
    table = open_table(table_of(config, spectrum))
    found = retrieve(
        plan_run(config, spectrum).job, table, config.scorer, load_prompts(config.prompts)
    )
    synthetic = (table.role == "train") & (table.lam_pct != REAL)
    web = found.sample_id == "web"
    assert (found.lam_pct[web] == 0).all()
    assert ((found.role == "train") & (found.lam_pct != REAL)).sum() == web.sum()
    for label in np.unique(table.label[synthetic]):
        assert (
            0 < (web & (found.label == label)).sum() <= (synthetic & (table.label == label)).sum()
        )
    kept = np.flatnonzero(~web)
    assert (found.images[kept] == table.images[np.flatnonzero(~synthetic)]).all()


def test_pretraining_is_a_function_of_the_seed(small, monkeypatch) -> None:
    monkeypatch.setattr(controls, "POOL", 64)
    config, spectrum = small
    job = plan_run(config, spectrum).job
    first, again = pretrain(job), pretrain(job)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_every_published_row_is_a_configuration_and_has_what_it_is_compared_with(small) -> None:
    config, _ = small
    for name, table in TABLES.items():
        labels = [spec.label for spec in table.rows]
        assert len(set(labels)) == len(labels)
        assert set(table.baselines) | set(table.baselines.values()) <= set(labels)
        base = (
            with_values(config, {"train.model": "clip", "train.start_steps": 0})
            if name == "low_quality"
            else config
        )
        assert len(
            {spec.of(base).model_dump_json() + spec.read + spec.web for spec in table.rows}
        ) == len(labels)
    assert next(iter(LONG_TAIL.baselines.items())) == (
        "BS + Diverse-to-Specific",
        "Balanced Softmax",
    )
    assert next(iter(LOW_QUALITY.baselines.items())) == ("FLYP + Adaptive", "FLYP")


def test_rows_are_named_by_what_they_are_and_controls_have_the_prior_of_the_row_beside_them(
    small,
) -> None:
    config, _ = small
    for name, table in TABLES.items():
        base = (
            with_values(config, {"train.model": "clip", "train.start_steps": 0})
            if name == "low_quality"
            else config
        )
        made = {spec.label: spec.of(base) for spec in table.rows}
        for label, found in made.items():
            if found.curriculum.strategy == "adaptive":
                assert ("margin" in label) is (found.curriculum.rule == "margin")
                assert strategy_name(found.curriculum) in label
            assert ("original prior" in label) is (found.train.prior == "original")
            assert found.curriculum.explore_extra is (
                label.startswith("FLYP") and name == "low_quality"
            )
        for label, baseline in table.baselines.items():
            assert made[label].train.prior == made[baseline].train.prior
    with pytest.raises(
        ValueError, match=r"adjusted afterwards where curriculum\.strategy is real_only"
    ):
        row("adjusted", "all_level", read="post_hoc")
    assert "prior: effective (what the stage trains on)" in heading(config)
    paper = with_values(
        config,
        {
            "curriculum.strategy": "adaptive",
            "curriculum.rule": "strict",
            "curriculum.explore_extra": True,
        },
    )
    assert strategy_name(paper.curriculum) == "Adaptive"
    assert "rule: strict, steps on D on top" in heading(paper)


def test_what_is_made_otherwise_than_before_has_another_name(small) -> None:
    config, spectrum = small
    plain = plan_run(config, spectrum).config_hash
    assert changed(config) == ()
    longer = with_values(config, {"curriculum.explore_extra": True})
    assert changed(longer) == ("epochs as long as those of adaptive",)
    assert changed(with_values(longer, {"curriculum.strategy": "adaptive"})) == ()
    assert (
        plan_run(with_values(config, {"curriculum.allow_empty": True}), spectrum).config_hash
        == plain
    )


STRICTER = {"filter.mode": "absolute", "filter.threshold": 0.999}
"""A filter that keeps nothing."""


def test_a_stage_without_a_kept_image_is_refused_before_training_unless_it_is_wanted(
    small, capsys
) -> None:
    config, spectrum = small
    empty = with_values(config, STRICTER)
    with pytest.raises(ConfigError) as caught:
        check_stages({"seed 0, CE": plan_run(empty, spectrum)}, spectrum)
    assert caught.value.exit_code == 2
    words = str(caught.value)
    assert words.startswith("seed 0, CE: curriculum.strategy = ")
    for part in (
        "λ 0 ",
        "filter.mode = absolute, filter.threshold = 0.999",
        "λ 0: 0 of",
        "λ 0.5: 0 of",
        "allow_empty=true",
    ):
        assert part in words
    check_stages(
        {"real": plan_run(with_values(empty, {"curriculum.strategy": "real_only"}), spectrum)},
        spectrum,
    )
    assert capsys.readouterr().out == ""
    allowed = with_values(empty, {"curriculum.allow_empty": True})
    check_stages({label: plan_run(allowed, spectrum) for label in "ABCDE"}, spectrum)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # a line a level
    (found, _) = supplies(plan_run(allowed, spectrum), spectrum)
    assert (found.kept, found.borrowed, found.real) == (0, 0, found.asked)
    assert lines[0] == (
        f"  A, B, C and 2 more rows: stage λ 0 asks for {found.asked} synthetic images an epoch: 0 kept; 0 drawn from a higher "
        f"level, {found.asked} from the real images"
    )
    full = with_values(
        config, {"filter.mode": "absolute", "filter.threshold": -1.0, "curriculum.scale": 5}
    )
    for stage in supplies(plan_run(full, spectrum), spectrum):
        times = stage.asked / stage.kept
        assert times > 1
        check_stages({"X": plan_run(full, spectrum)}, spectrum)
        assert (
            f"{stage.kept} kept, each shown {times:.1f} times an epoch on average; 0 drawn"
            in capsys.readouterr().out
        )


def test_an_adaptive_curriculum_without_a_probe_is_refused_before_training(
    small, monkeypatch
) -> None:
    from discl_ray.experiments import stages

    config, spectrum = small
    config = with_values(config, {"curriculum.strategy": "adaptive"})
    check_kept(plan_run(config, spectrum), spectrum)
    rows = stages.table_rows(spectrum, config.filter)
    left = rows.filter(pc.equal(rows["role"], "train"))
    monkeypatch.setattr(stages, "table_rows", lambda *_: left)
    monkeypatch.setattr(stages, "_PLANNED", {})
    with pytest.raises(
        ConfigError, match=r"no probe at any level.*raise hard\.probe_sources"
    ) as caught:
        check_kept(plan_run(config, spectrum), spectrum)
    assert caught.value.exit_code == 2
    check_kept(plan_run(with_values(config, {"curriculum.strategy": "random"}), spectrum), spectrum)


def test_a_sweep_is_refused_where_no_point_has_an_image_for_each_stage(small) -> None:
    config, spectrum = small
    full = with_values(config, {"filter.mode": "absolute", "filter.threshold": -1.0})
    seeds = [(full, spectrum)]
    strict, loose = {"filter.threshold": 0.999}, {"filter.threshold": -1.0}
    check_points(seeds, [strict, loose])
    check_kept(plan_run(with_values(full, loose), spectrum), spectrum)
    with pytest.raises(
        ConfigError, match=r"^curriculum\.strategy = .* drawn with filter\.threshold=0\.999"
    ):
        check_points(seeds, [strict, strict | {"train.learning_rate": 0.1}])
    with pytest.raises(
        ConfigError,
        match=r"^none of the 2 points has a synthetic image for each stage; the first: ",
    ):
        check_points(seeds, [strict, {"filter.threshold": 0.998}])
    check_points(seeds, [strict, {"filter.threshold": 0.999, "curriculum.strategy": "real_only"}])


def test_probes_are_not_filtered_and_the_filters_word_on_them_is_told(small) -> None:
    config, spectrum = small
    table = open_table(table_of(with_values(config, STRICTER), spectrum))
    probes = table.role == "probe"
    by_level = {
        level: sorted(table.sample_id[probes & (table.lam_pct == level)]) for level in (0, 50)
    }
    assert (
        by_level[0] == by_level[50] == sorted(table.sample_id[(table.role == "val") & table.hard])
    )
    assert not ((table.role == "train") & (table.lam_pct != REAL)).any()
    found = passed(spectrum, with_values(config, STRICTER).filter, "probe")
    assert found == {level: (0, len(sources)) for level, sources in by_level.items()}
    assert probe_line(found).endswith(
        f"λ 0: 0 % of {len(by_level[0])}, λ 0.5: 0 % of {len(by_level[50])}"
    )


def test_the_primary_contrast_comes_first_and_pictures_are_pictures() -> None:
    value = Interval(1.0, -0.5, 2.5)
    contrasts = {("B", "A", c): value for c in COLUMNS} | {("C", "A", c): value for c in COLUMNS}
    contrasts["C", "A", ("top1", "few")] = Interval(float("nan"), float("nan"), float("nan"))
    text = markdown(
        {("A", c): value for c in COLUMNS}, contrasts, COLUMNS, what="test", seen={"A": "42"}
    )
    lines = text.splitlines()
    assert lines[2] == "| **B − A** | " + " | ".join(["+1.0 [-0.5, +2.5]"] * 4) + " |"
    assert "| C − A | +1.0 [-0.5, +2.5] | +1.0 [-0.5, +2.5] | – |" in lines[3]
    assert lines[-1].endswith("| 42 |")
    measured = {
        "progress_50": 0.1,
        "progress_se_50": 0.01,
        "progress_100": 0.0,
        "progress_se_100": 0.0,
    }
    history = [{"epoch": e, "lam": 0.5, "lead_in_se": 0.3 * e, **measured} for e in (1, 2, 3, 4)]
    assert within_one_se(history) == 0.75
    assert history_table(history).splitlines()[1] == "1,0.5,0.3,0.5,0.1,0.01"
    values = {
        (dose, label, c): value for dose in ("none", "large") for label in "AB" for c in COLUMNS[:2]
    }
    for made in (
        picture(contrasts, COLUMNS, title="t"),
        gap_picture(values, ["none", "large"], COLUMNS[:2], title="t"),
        history_picture(history),
    ):
        assert Image.open(io.BytesIO(made)).width > 300
