"""The optimizer and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from discl_ray.train.config import TrainConfig
from discl_ray.train.learners.learner import parameter_groups


def make_optimizer(model: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer that `train.optimizer` names."""
    rate = train.learning_rate
    if train.optimizer == "adamw":
        return torch.optim.AdamW(parameter_groups(model, train), lr=rate)
    return torch.optim.Adam(model.parameters(), lr=rate, weight_decay=train.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def learning_rate_factor(progress: float, step: float, *, warmup: float) -> float:
    """Share of the highest learning rate: linear up to 1 over the first `warmup` of a run, then a
    cosine towards 0.

    `progress` in [0, 1) is the part of the run that is done before a step, `step` the part that the
    step itself is.
    """
    done = progress + step
    if done <= warmup:
        return done / warmup
    after_warmup = max(0.0, progress - warmup)
    angle = math.pi * after_warmup / (1 - warmup)
    return 0.5 * (1 + math.cos(angle))
