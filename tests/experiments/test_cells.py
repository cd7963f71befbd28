"""A comparison on the tiny spectrum.

Every way of reading weights is used, and nothing is computed or opened twice.
"""

import io

import numpy as np
import pytest
from PIL import Image

from discl_ray.errors import IntegrityError
from discl_ray.experiments import cells as compare
from discl_ray.experiments import controls
from discl_ray.experiments.cells import compare_seed, difference, openings, read_cell
from discl_ray.experiments.footnotes import synthetic_images_of
from discl_ray.experiments.rows import CE, plan_run, row
from discl_ray.experiments.statistics import Interval
from discl_ray.experiments.tables import LONG_TAIL, ZERO_SHOT_SCORER
from discl_ray.report.comparison import gap_picture, markdown, picture
from discl_ray.report.history import history_picture, history_table, within_one_se

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
        assert (f"{path}: is cut short or garbled" in said) == (damage != "gone")


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
