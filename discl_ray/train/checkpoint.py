"""A state of the loop as files: nothing in them is pickled but tensors and numbers, and they are read without unpickling more.

model.safetensors    weights as of the epoch
best.safetensors     weights of the best epoch, if they are to be kept
optimizer.pt         the optimizer's tensors and numbers
state.json           epoch, curriculum, augmentation strengths, which epoch was best
SHA256SUMS           of all of these, as `sha256sum -c` reads them; checkpoints of earlier versions have none
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from discl_ray.core.ids import file_hash
from discl_ray.errors import IntegrityError

MODEL, BEST, OPTIMIZER, STATE = (
    "model.safetensors",
    "best.safetensors",
    "optimizer.pt",
    "state.json",
)
SUMS = "SHA256SUMS"

PLAIN = ("epoch", "curriculum", "strength")
"""What of a state is JSON."""


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes a state that the loop reported."""
    best = state["best"]
    save_file({k: v.contiguous() for k, v in state["model"].items()}, folder / MODEL)
    if best is not None:
        save_file({k: v.contiguous() for k, v in best["model"].items()}, folder / BEST)
    torch.save(state["optimizer"], folder / OPTIMIZER)
    plain = {name: state[name] for name in PLAIN}
    plain["best"] = None if best is None else {"epoch": best["epoch"], "value": best["value"]}
    (folder / STATE).write_text(json.dumps(plain))
    lines = [f"{file_hash(file)}  {file.name}\n" for file in sorted(folder.iterdir())]
    (folder / SUMS).write_text("".join(lines))


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote.

    Raises IntegrityError if a file is missing or damaged.
    """
    try:
        _check_sums(folder)
        plain = json.loads((folder / STATE).read_text())
        best = plain.pop("best")
        return {
            **plain,
            "model": load_file(folder / MODEL),
            "best": None if best is None else {**best, "model": load_file(folder / BEST)},
            "optimizer": torch.load(folder / OPTIMIZER, weights_only=True),
        }
    except Exception as error:  # whatever garbage leads to when it is read
        raise IntegrityError(
            f"{folder}: the checkpoint is damaged: {' '.join(str(error).split())[:200]}"
        ) from error


def _check_sums(folder: Path) -> None:
    """Raises ValueError if a file is not what was written, OSError if it is gone."""
    if not (folder / SUMS).is_file():
        return
    for line in (folder / SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        if file_hash(folder / name) != digest:
            raise ValueError(f"{name} differs from {SUMS}")


def kept_weights(folder: Path) -> Path:
    """The file of the weights a finished run is to leave: the best if they were kept, else the last."""
    return folder / (BEST if (folder / BEST).is_file() else MODEL)
