"""The epoch loop: plain torch, no Ray. A controller chooses, a sampler orders, a report carries results and checkpoints out.

Every random number is a function of (seed, epoch, place): resumed equals never stopped, bit for bit, at one world size on CPU.
The gradient is the sum over the global batch divided by its size, so the number of workers does not change what a step means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.controller import Controller
from discl_ray.curriculum.mixing import EpochOrder, Pools, epoch_order
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.evaluate.metrics import top1_by_group
from discl_ray.train.augment import augment, draw_parameters, to_tensor
from discl_ray.train.config import TrainConfig
from discl_ray.train.losses import LOSSES
from discl_ray.train.models import resnet10
from discl_ray.train.table import ImageTable


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything one training run is, besides its images."""

    seed: int
    train: TrainConfig
    curriculum: CurriculumConfig
    hard_labels: frozenset[int]
    groups: dict[int, str]
    """Label -> many, medium or few."""
    counts: tuple[int, ...]
    """Real training images by label."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the loop hands out after an epoch it was asked to report."""

    epoch: int
    metrics: dict[str, float]
    state: dict[str, Any]
    """Tensors and JSON values from which the run can go on: model, optimizer, epoch, curriculum."""


@dataclass(frozen=True)
class World:
    """This worker's place among all."""

    rank: int = 0
    size: int = 1


def loop(
    job: TrainJob,
    table: ImageTable,
    controller: Controller,
    report: Callable[[Report], None],
    *,
    start: Mapping[str, Tensor] | None = None,
    resume: Mapping[str, Any] | None = None,
    world: World = World(),
    epochs: int | None = None,
) -> nn.Module:
    """Trains and returns the model. `start` are weights to begin from, `resume` a state that `report` was given.

    `epochs` overrides the configured number (the start run has its own). Raises DisclError on a loss that is not finite.
    """
    model = resnet10(num_classes=len(job.counts), width=job.train.width, seed=job.seed)
    if start is not None:
        model.load_state_dict(dict(start))
    optimizer = torch.optim.Adam(model.parameters(), lr=job.train.learning_rate, weight_decay=job.train.weight_decay)
    first, total_epochs = 1, job.train.epochs if epochs is None else epochs
    if resume is not None:
        model.load_state_dict(resume["model"])
        optimizer.load_state_dict(resume["optimizer"])
        first = resume["epoch"] + 1
        if world.rank == 0:
            controller.load(resume["curriculum"])
    pools = Pools.of(
        label=table.label,
        lam_pct=table.lam_pct,
        role=table.role,
        hard_labels=set(job.hard_labels),
        num_classes=len(job.counts),
    )
    for epoch in range(first, total_epochs + 1):
        choice = _agree(controller.choose(epoch) if world.rank == 0 else None, world)
        if choice is None:
            raise IntegrityError(f"the curriculum has no choice for epoch {epoch}: an earlier epoch is not recorded")
        order = epoch_order(pools, choice, job.curriculum, seed=job.seed, epoch=epoch)
        if (table.role[order.rows] != "train").any():
            raise IntegrityError(f"epoch {epoch}: an image whose role is not train was about to be trained on")
        loss = _train_epoch(model, optimizer, table, order, job, epoch, total_epochs, world)
        last = epoch == total_epochs
        metrics = {
            "loss": loss,
            "lam": float(np.mean(choice.levels)) / 100 if choice.levels else 1.0,
            "synthetic": order.synthetic,
            "borrowed": order.borrowed,
            "share": order.share,
            "images": len(order.rows),
        }
        reporting = last or epoch % job.train.eval_every == 0
        if reporting:
            for group, (accuracy, _) in evaluate_val(model, table, job.groups).items():
                if not math.isnan(accuracy):
                    metrics[f"val_top1_{group}"] = accuracy
        if world.rank == 0:
            controller.record(epoch, metrics)
        if reporting:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            curriculum = controller.state() if world.rank == 0 else {}
            report(Report(epoch=epoch, metrics=metrics, state={**state, "curriculum": curriculum}))
    return model


def _agree(choice: Any, world: World) -> Any:
    """Rank 0's choice, on every rank."""
    if world.size == 1:
        return choice
    box = [choice]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    table: ImageTable,
    order: EpochOrder,
    job: TrainJob,
    epoch: int,
    total_epochs: int,
    world: World,
) -> float:
    """One pass over the epoch's rows; returns the mean loss over all workers."""
    loss_of, counts = LOSSES[job.train.loss], torch.tensor(job.counts, dtype=torch.float32).clamp(min=1)
    parameters = draw_parameters(len(order.rows), seed=job.seed, epoch=epoch)
    batches = range(0, len(order.rows), job.train.batch)
    total = torch.zeros(())
    model.train()
    for number, begin in enumerate(batches):
        places = np.arange(begin, min(begin + job.train.batch, len(order.rows)))
        mine = places[world.rank :: world.size]
        progress = (epoch - 1 + number / len(batches)) / total_epochs
        for group in optimizer.param_groups:
            group["lr"] = job.train.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        optimizer.zero_grad(set_to_none=True)
        if len(mine):
            rows = order.rows[mine]
            x = augment(to_tensor(table.images[rows]), parameters[mine], shift=job.train.shift, jitter=job.train.jitter)
            loss = loss_of(model(x), torch.from_numpy(table.label[rows]), counts)
            (loss / len(places)).backward()
            total += loss.detach()
        if world.size > 1:
            _sum_gradients(model)
        optimizer.step()
    if world.size > 1:
        dist.all_reduce(total)
    mean = float(total) / len(order.rows)
    if not math.isfinite(mean):
        raise DisclError(f"epoch {epoch}: the loss is {mean}; lower train.learning_rate = {job.train.learning_rate}")
    return mean


def _sum_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


@torch.no_grad()
def predict(model: nn.Module, images: np.ndarray) -> Tensor:
    """Class probabilities, shape (N, classes), in eval mode and without augmentation."""
    model.eval()
    return torch.cat([model(to_tensor(part)).softmax(1) for part in np.array_split(images, max(1, len(images) // 256))])


def evaluate_val(model: nn.Module, table: ImageTable, groups: dict[int, str]) -> dict[str, tuple[float, int]]:
    """Top-1 by group on the real val images of the table."""
    rows = np.flatnonzero(table.role == "val")
    predicted = predict(model, table.images[rows]).argmax(1).numpy()
    return top1_by_group(table.label[rows], predicted, groups)
