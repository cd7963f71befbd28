"""One row under Ray Train: trained once, recorded, evaluated on test, and resumed elsewhere."""

import shutil

import pytest
import torch

from discl_ray.config import with_values
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.storage import Store
from discl_ray.evaluate.held_out import evaluate_test
from discl_ray.experiments.rows import CE, plan_run
from discl_ray.experiments.run_workers import describe_workers
from discl_ray.experiments.training import evaluate_on_test, train_row
from discl_ray.train.run_files import MODEL, read_history

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def trained(small):
    """(configuration, spectrum, run, weights) of a row trained by one worker."""
    config, spectrum = small
    row = with_values(CE.of(config), {"train.workers": 1, "train.eval_every": 1})
    planned, weights = train_row(row, spectrum, label="CE", start=None)
    return row, spectrum, planned, weights


def test_a_row_is_trained_once_recorded_and_evaluated(trained, tmp_path) -> None:
    row, spectrum, planned, weights = trained
    assert planned.store.base == plan_run(row, spectrum).store.base
    assert planned.store.exists("config.yaml")
    assert [entry["epoch"] for entry in read_history(planned.store)] == [1, 2, 3]
    _, again = train_row(row, spectrum, label="CE", start=None)
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    scores = evaluate_on_test(planned, weights, spectrum)
    evaluated = evaluate_test(
        planned.job,
        weights,
        spectrum=spectrum,
        run=type(planned.store).at(tmp_path),
        config_hash=planned.config_hash,
        device="cpu",
    )
    assert scores.keys() == evaluated.keys()
    for name, (value, images) in scores.items():
        assert evaluated[name] == (pytest.approx(value, nan_ok=True), images)


def test_a_run_of_one_worker_cut_short_goes_on_with_two_and_its_table_says_so(
    trained, tmp_path, capsys
) -> None:
    row, spectrum, planned, _ = trained
    shutil.copytree(row.run.root, tmp_path / "runs", symlinks=True)
    elsewhere = with_values(row, {"run.root": str(tmp_path / "runs"), "train.workers": 2})
    run = plan_run(elsewhere, spectrum).store
    assert run.name == planned.store.name
    _cut_short(run)
    capsys.readouterr()
    resumed, weights = train_row(elsewhere, spectrum, label="CE", start=None)
    said = capsys.readouterr().out
    assert "goes on with 2 workers on the CPU; so far it was trained by 1 worker on the CPU" in said
    assert "the one before is taken" in said
    assert [entry["epoch"] for entry in read_history(run)] == [1, 2, 3]
    assert describe_workers([resumed]).startswith(
        "1 worker on the CPU, then 2 workers on the CPU. Batch norm"
    )
    assert not all(torch.equal(weights[name], trained[3][name]) for name in weights)


def _cut_short(run: Store) -> None:
    """As a job leaves it that is killed while it writes the last epoch's checkpoint."""
    assert run.local is not None
    for name in (MANIFEST, MODEL):
        (run.local / name).unlink()
    *_, newest = sorted(run.local.glob("ray_train/checkpoint_2*"))
    with (newest / MODEL).open("r+b") as file:
        file.truncate(1000)
