"""One row under Ray Train: trained once, recorded, and evaluated on test."""

import pytest
import torch

from discl_ray.evaluate.held_out import evaluate_test
from discl_ray.experiments.rows import CE, plan_run
from discl_ray.experiments.training import evaluate_on_test, train_row
from discl_ray.train.run_files import read_history


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_row_is_trained_once_recorded_and_evaluated(small, tmp_path) -> None:
    config, spectrum = small
    row = CE.of(config)
    planned, weights = train_row(row, spectrum, label="CE", start=None)
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
