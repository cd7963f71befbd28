import numpy as np
import pytest
import torch
from torch import nn

from discl_ray.train.config import TrainConfig
from discl_ray.train.schedule import learning_rate_factor, make_optimizer, set_learning_rate


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_the_learning_rate_rises_linearly_and_falls_on_a_cosine(warmup: float) -> None:
    steps = 200
    factors = np.array(
        [learning_rate_factor(s / steps, 1 / steps, warmup=warmup) for s in range(steps)]
    )
    rising = round(warmup * steps)
    assert factors.max() == pytest.approx(1.0)
    assert (factors > 0).all()
    assert np.diff(factors[:rising]) == pytest.approx(1 / max(rising, 1))
    assert (np.diff(factors[rising:]) < 0).all()
    assert factors[rising:] == pytest.approx(
        0.5 * (1 + np.cos(np.pi * np.arange(steps - rising) / (steps - rising)))
    )


def test_adamw_decays_matrices_and_neither_gains_nor_biases() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    config = TrainConfig(optimizer="adamw", weight_decay=0.1, learning_rate=0.5)
    optimizer = make_optimizer(model, config)
    decays = {p.ndim: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert isinstance(optimizer, torch.optim.AdamW)
    assert decays == {2: 0.1, 1: 0.0}
    plain = make_optimizer(model, TrainConfig(weight_decay=0.1))
    assert type(plain) is torch.optim.Adam
    assert [group["weight_decay"] for group in plain.param_groups] == [0.1]
    set_learning_rate(optimizer, 0.25)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}
