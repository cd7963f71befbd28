"""What training says at its end; without a spectrum it does not begin."""

from dataclasses import replace

import pytest

from discl_ray.cluster.demand import Workers
from discl_ray.commands.train import job, report
from discl_ray.core.storage import Store
from discl_ray.errors import SetupError
from discl_ray.experiments.pair import TrainedRow
from discl_ray.experiments.rows import PlannedRun
from discl_ray.report.tables import LONG_TAIL
from discl_ray.spectrum.open import Spectrum
from tests.train.tiny import make_job


def test_without_a_spectrum_it_ends_before_anything_is_started(small):
    with pytest.raises(SetupError):
        job(small())


def test_the_table_has_a_line_a_row_and_the_curves_lie_beside_the_last_run(
    spectrum_run, tmp_path, capsys
):
    config, made = spectrum_run
    spectrum = Spectrum.open(made.store)
    planned = PlannedRun(
        job=make_job(),
        store=Store.at(tmp_path / "first"),
        config=config,
        config_hash="",
        epochs=1,
        workers=(Workers(1, gpu=False),),
    )
    last = Store.at(tmp_path / "last")
    measured = {"epoch": 1, "lam": 0.0, "val_top1_overall": 20.0, "borrowed": 0}
    rows = [
        TrainedRow(
            label="CE",
            planned=planned,
            weights={},
            scores=dict.fromkeys(LONG_TAIL, (50.0, 10)),
            history=[{**measured, "synthetic": 0}],
        ),
        TrainedRow(
            label="CE + Adaptive",
            planned=replace(planned, store=last),
            weights={},
            scores=dict.fromkeys(LONG_TAIL, (54.0, 10)),
            history=[{**measured, "synthetic": 7}],
        ),
    ]
    report(config, spectrum, rows)
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("  CE + Adaptive ")]
    assert line.split()[-1] == "7"
    assert "+4.0" in said
    assert "trained by 1 " in said
    assert f"look at {last.path('curves.png')} · next: make compare" in said
    assert last.read("curves.png").startswith(b"\x89PNG")
    report(config, spectrum, rows[:1])
    assert "difference" not in capsys.readouterr().out
