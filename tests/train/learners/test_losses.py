import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from discl_ray.train.learners.losses import LOSSES


def test_losses_are_their_formulas_in_float64() -> None:
    rng = np.random.default_rng(0)
    logits, labels, counts = (
        rng.normal(size=(7, 4)),
        rng.integers(4, size=7),
        np.array([50.0, 20, 3, 1]),
    )
    expected = {
        "ce": -log_softmax(logits, axis=1)[range(7), labels].sum(),
        "balanced_softmax": -log_softmax(logits + np.log(counts / counts.sum()), axis=1)[
            range(7), labels
        ].sum(),
        "logit_adjusted": -log_softmax(logits + 1.7 * np.log(counts / counts.sum()), axis=1)[
            range(7), labels
        ].sum(),
    }
    assert set(LOSSES) == set(expected)
    for name, loss in LOSSES.items():
        got = loss(
            torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(counts), 1.7
        )
        assert got.shape == (7,)
        assert float(got.sum()) == pytest.approx(expected[name], abs=1e-10)
