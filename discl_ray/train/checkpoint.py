"""The state of a training run, and its files.

Nothing in them is pickled but tensors and numbers, and they are read without unpickling more.

model.safetensors    weights as of the epoch
best.safetensors     weights of the best epoch, if they are to be kept
optimizer.pt         the optimizer's tensors and numbers
state.json           epoch, curriculum, augmentation strengths, which epoch was best
SHA256SUMS           of all of these, as `sha256sum -c` reads them; earlier versions wrote none
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from discl_ray.core.ids import file_hash
from discl_ray.errors import IntegrityError

MODEL = "model.safetensors"
BEST = "best.safetensors"
OPTIMIZER = "optimizer.pt"
STATE = "state.json"
SUMS = "SHA256SUMS"

Weights = dict[str, Tensor]
"""A model's tensors by name, its `state_dict`."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The epoch that was best on val."""

    epoch: int
    value: float
    """Its main metric, in percent."""
    model: Weights


@dataclass(frozen=True, kw_only=True)
class LoopState:
    """Everything from which a run can go on. The tensors are the live ones, not copies."""

    epoch: int
    """The last one that is done, from 1."""
    model: Weights
    best: Best | None
    """None unless the best weights are to be kept."""
    optimizer: dict[str, Any]
    strength: list[int]
    """CUDA's level of each class."""
    curriculum: dict[str, Any]
    """The controller's state; empty on all ranks but 0."""

    @property
    def history(self) -> dict[str, dict[str, Any]]:
        """The curriculum's record of each epoch, by its number as text."""
        return self.curriculum["history"]


def save_checkpoint(folder: Path, state: LoopState) -> None:
    """Writes a state that the loop reported."""
    _save_weights(state.model, folder / MODEL)
    plain: dict[str, Any] = {
        "epoch": state.epoch,
        "curriculum": state.curriculum,
        "strength": state.strength,
        "best": None,
    }
    if state.best is not None:
        _save_weights(state.best.model, folder / BEST)
        plain["best"] = {"epoch": state.best.epoch, "value": state.best.value}
    torch.save(state.optimizer, folder / OPTIMIZER)
    (folder / STATE).write_text(json.dumps(plain))
    lines = [f"{file_hash(file)}  {file.name}\n" for file in sorted(folder.iterdir())]
    (folder / SUMS).write_text("".join(lines))


def _save_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    """Writes tensors by name."""
    # safetensors refuses tensors with channels last
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file)


def load_checkpoint(folder: Path) -> LoopState:
    """Reads what `save_checkpoint` wrote.

    Raises IntegrityError if a file is missing or damaged.
    """
    try:
        _check_sums(folder)
        plain = json.loads((folder / STATE).read_text())
        best = plain.pop("best")
        if best is not None:
            best = Best(**best, model=load_file(folder / BEST))
        return LoopState(
            **plain,
            best=best,
            model=load_file(folder / MODEL),
            optimizer=torch.load(folder / OPTIMIZER, weights_only=True),
        )
    except Exception as error:  # damaged files raise errors of every kind
        problem = " ".join(str(error).split())[:200]
        raise IntegrityError(f"{folder}: the checkpoint is damaged: {problem}") from error


def _check_sums(folder: Path) -> None:
    """Raises ValueError if a file is not what was written, OSError if it is gone."""
    if not (folder / SUMS).is_file():
        return
    for line in (folder / SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        if file_hash(folder / name) != digest:
            raise ValueError(f"{name} differs from {SUMS}")


def kept_weights(folder: Path) -> Path:
    """The file of the weights that a finished run leaves: the best if kept, else the last."""
    best = folder / BEST
    return best if best.is_file() else folder / MODEL
