"""One resumable optimisation loop, shared by everything the embedded default trains.

Each step's randomness comes from (seed, step) alone, the learning rate is a function of the step, and the whole state is
written every `every` steps: a run that was killed and started again ends with the weights of one that never stopped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

Log = Callable[[dict[str, object]], None]


def log_to(path: Path) -> Log:
    """A logger that prints a record and appends it to `path` as one JSON line."""

    def log(record: dict[str, object]) -> None:
        line = json.dumps(record)
        print(line, flush=True)
        with path.open("a") as file:
            file.write(line + "\n")

    return log


def one_cycle(step: int, steps: int, *, warmup: int = 100) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up, then a cosine down to 2 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(1, steps - warmup)))


class Average(nn.Module):
    """Exponential moving average of a module's parameters and buffers, with a warm-up of the decay."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value, 1 - decay)
            else:
                self.values[key].copy_(value)


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
    """Minimises `loss_of(generator)` over `module`'s parameters and returns the module holding its averaged weights.

    State lies in `work/<name>.pt` (tensors and numbers only) and is taken up again if it is there.
    """
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01
    )
    average, first, path = Average(module), 0, work / f"{name}.pt"
    if path.is_file():
        state = torch.load(path, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, first = state["average"], state["step"]
    running, since = 0.0, time.monotonic()
    module.train()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * one_cycle(step, steps)
        loss = loss_of(torch.Generator().manual_seed(seed * 1_000_003 + step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        average.update(module, step)
        running += float(loss.detach())
        if (step + 1) % every == 0 or step + 1 == steps:
            count = (step % every) + 1
            seconds = time.monotonic() - since
            log(
                {
                    "part": name,
                    "step": step + 1,
                    "loss": round(running / count, 5),
                    "seconds": round(seconds, 1),
                }
            )
            running, since = 0.0, time.monotonic()
            state = {
                "module": module.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.values,
            }
            torch.save({**state, "step": step + 1}, path.with_suffix(".tmp"))
            os.replace(path.with_suffix(".tmp"), path)
    module.load_state_dict(average.values)
    return module.eval()
