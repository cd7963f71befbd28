from torch import nn

from discl_ray.train.config import TrainConfig
from discl_ray.train.learners.learner import ALONE, World, parameter_groups


def test_gains_and_biases_are_not_decayed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(2, 2))
    decayed, plain = parameter_groups(model, TrainConfig(weight_decay=0.3))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_alone_is_the_first_of_one() -> None:
    assert World(rank=0, size=1) == ALONE
