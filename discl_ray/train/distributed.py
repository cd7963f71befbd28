"""What the workers of a run exchange; with one worker nothing."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from discl_ray.train.learners.learner import World

Value = TypeVar("Value")


def from_rank_0(value: Value, world: World) -> Value:
    """Rank 0's value, on every rank."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def sum_over(tensor: Tensor, world: World) -> None:
    """Sums a tensor over the workers, in place."""
    if world.size > 1:
        dist.all_reduce(tensor)


def sum_gradients(model: nn.Module, world: World) -> None:
    """Sums all gradients in one reduction; a worker without images contributes zeros."""
    if world.size == 1:
        return
    gradients: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def average_buffers(model: nn.Module, world: World) -> None:
    """Averages batch normalisation's running statistics: each worker's are of its own images."""
    if world.size == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= world.size
