"""A resumable optimisation loop, shared by everything that the embedded default trains.

Each step's randomness comes from (seed, step) alone, the learning rate is a function of the step,
and the whole state is written at intervals: a run that is killed and started again ends with the
weights of one that never stopped.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

Log = Callable[[dict[str, object]], None]

log = logging.getLogger(__name__)

FINAL = 0.02
"""Learning-rate factor of the last step."""


def log_to(path: Path) -> Log:
    """A function that logs a record and appends it to `path` as a line of JSON."""

    def write(record: dict[str, object]) -> None:
        line = json.dumps(record)
        log.info("%s", line)
        with path.open("a") as file:
            file.write(line + "\n")

    return write


def one_cycle(step: int, steps: int, *, warmup: int = 100) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up, then a cosine down to FINAL."""
    if step < warmup:
        return (step + 1) / warmup
    after = max(1, steps - warmup)
    share = (step - warmup) / after
    angle = np.pi * share
    cosine = 0.5 * (1 + np.cos(angle))
    return FINAL + (1 - FINAL) * cosine


def random_rows(count: int, batch: int, generator: torch.Generator) -> Tensor:
    """Rows of a random batch, drawn from `count` with replacement; shape (batch,)."""
    return torch.randint(count, (batch,), generator=generator)


def channels_first(images: np.ndarray) -> Tensor:
    """Images of shape (N, H, W, 3) as (N, 3, H, W), in the same memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


class Average(nn.Module):
    """Exponential moving average of parameters and buffers, with a warm-up of the decay."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        state = module.state_dict()
        self.values: dict[str, Tensor] = {}
        for name, value in state.items():
            self.values[name] = value.detach().clone()

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Moves the average towards a module's values after step number `step`, from 0."""
        # early on a shorter memory, or the first values would stay in it
        early = (1 + step) / (10 + step)
        decay = min(self.decay, early)
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value, 1 - decay)
            else:
                self.values[key].copy_(value)


class _Fit:
    """A module being trained, and its state on disk."""

    def __init__(self, module: nn.Module, path: Path, learning_rate: float) -> None:
        self.module = module
        self.path = path
        self.learning_rate = learning_rate
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        self.average = Average(module)

    def load(self) -> int:
        """Restores the state, if there is one; the next step."""
        if not self.path.is_file():
            return 0
        state = torch.load(self.path, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.values = state["average"]
        return state["step"]

    def save(self, step: int) -> None:
        """Writes the state after `step` steps; tensors and numbers only."""
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.values,
            "step": step,
        }
        written = self.path.with_suffix(".tmp")
        torch.save(state, written)
        os.replace(written, self.path)

    def step(self, loss: Tensor, step: int, steps: int) -> None:
        """Takes step number `step` of `steps`, from 0."""
        learning_rate = self.learning_rate * one_cycle(step, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.module, step)


def fit(
    name: str,
    module: nn.Module,
    loss_of: Callable[[torch.Generator], Tensor],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    work: Path,
    log: Log,
    every: int = 500,
) -> nn.Module:
    """Minimises `loss_of(generator)` over a module's parameters; returns it with averaged weights.

    The state is written to `work/<name>.pt` every `every` steps, and resumed from there.
    """
    path = work / f"{name}.pt"
    training = _Fit(module, path, learning_rate)
    first = training.load()
    running = 0.0
    since = time.monotonic()
    module.train()
    for step in range(first, steps):
        # a factor above any number of steps, so that no two seeds share a generator
        seed_of_step = seed * 1_000_003 + step
        generator = torch.Generator().manual_seed(seed_of_step)
        loss = loss_of(generator)
        training.step(loss, step, steps)
        running += float(loss.detach())
        done = step + 1
        if done % every and done != steps:
            continue
        mean = running / (step % every + 1)
        seconds = time.monotonic() - since
        record = {"part": name, "step": done, "loss": round(mean, 5), "seconds": round(seconds, 1)}
        log(record)
        running = 0.0
        since = time.monotonic()
        training.save(done)
    module.load_state_dict(training.average.values)
    return module.eval()
