"""Weight ensembling: between the start and the trained weights, as val says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from discl_ray.evaluate.ensemble import ALPHAS, choose_alpha, ensembled
from discl_ray.experiments.cells import fresh
from discl_ray.train.loop import predictor_of
from tests.train.tiny import in_memory, make_job


def test_floats_are_mixed_and_counts_are_those_of_the_trained_weights():
    start = {"w": torch.tensor([0.0, 4.0]), "batches": torch.tensor(3)}
    weights = {"w": torch.tensor([2.0, 0.0]), "batches": torch.tensor(7)}
    assert ensembled(start, weights, 0.25)["w"].tolist() == [0.5, 3.0]
    for alpha, whole in ((0.0, start), (1.0, weights)):
        assert torch.equal(ensembled(start, weights, alpha)["w"], whole["w"])
    assert ensembled(start, weights, 0.25)["batches"] == 7


@pytest.fixture
def tiny(tmp_path):
    return make_job(), in_memory(tmp_path / "table")


def test_alpha_is_the_best_on_val_alone_and_of_equals_the_largest(tiny):
    job, table = tiny
    start, other = fresh(job), fresh(replace(job, seed=job.seed + 1))
    assert choose_alpha(job, start, start, table) == 1.0  # all are equal
    val = np.flatnonzero(table.role == "val")

    def right(alpha):
        predict = predictor_of(job, ensembled(start, other, alpha))
        return (predict(table.images[val]).argmax(1).numpy() == table.label[val]).mean()

    accuracy = {alpha: right(alpha) for alpha in ALPHAS}
    best = max(accuracy.values())
    expected = max(alpha for alpha, value in accuracy.items() if value == best)
    assert choose_alpha(job, start, other, table) == expected
    assert len(set(accuracy.values())) > 1
