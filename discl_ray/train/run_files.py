"""What a training run leaves in its folder: weights, metrics by epoch, and in the end a manifest.

This module leaves PyTorch and Ray out until weights are read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from discl_ray.core.ids import sha256
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.train.job import history_rows, numbers

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

MODEL = "model.safetensors"
METRICS = "metrics.jsonl"

FROM_CHECKPOINT = "it is made again from the run's last checkpoint"
"""Remedy for a damaged file."""


def load_weights(run: Store, remedy: str = FROM_CHECKPOINT) -> dict[str, torch.Tensor]:
    """A finished run's weights; raises IntegrityError with the remedy if they cannot be read."""
    import safetensors
    import safetensors.torch

    with run.reading(MODEL, remedy):
        try:
            return safetensors.torch.load(run.read(MODEL))
        except safetensors.SafetensorError as error:
            raise ValueError(error) from error


def read_history(run: Store) -> list[dict[str, Any]]:
    """A run's metrics by epoch; raises IntegrityError if they cannot be read."""
    with run.reading(METRICS, FROM_CHECKPOINT):
        rows = [json.loads(line) for line in run.read(METRICS).decode().splitlines()]
        if not rows or not all(row["epoch"] for row in rows):
            raise ValueError("no epochs")
        return rows


def write_history(run: Store, history: Mapping[str, Any]) -> None:
    """Writes metrics.jsonl from the controller's history.

    The whole file each time: epochs after the last checkpoint that were lost do not stay in it.
    """
    lines = [json.dumps(row) for row in history_rows(history)]
    run.write(METRICS, ("\n".join(lines) + "\n").encode())


def write_tensorboard(run: Store, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the numbers of each epoch as TensorBoard events, into local folders only."""
    if run.local is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.local / "tensorboard")) as writer:
        for row in rows:
            for name, value in numbers(row).items():
                writer.add_scalar(name, value, row["epoch"])


def write_manifest(run: Store, *, label: str, table: str, state: Mapping[str, Any]) -> None:
    """Closes a run: its weights and metrics are final. `state` is the last checkpoint's."""
    sums = {name: sha256(run.read(name)) for name in (MODEL, METRICS)}
    run.write_json(
        MANIFEST,
        {
            "epochs": state["epoch"],
            "best": state["best"],
            "label": label,
            "table": table,
            "sha256": sums,
        },
    )


def finished_weights(run: Store) -> dict[str, torch.Tensor] | None:
    """A finished run's weights; None for one that is not finished, or whose files are damaged."""
    if not run.exists(MANIFEST):
        return None
    try:
        _check_sums(run)
        read_history(run)
        return load_weights(run)
    except IntegrityError as error:
        log.info("%s", error)
        return None


def _check_sums(run: Store) -> None:
    """Raises IntegrityError if a finished run's files differ from its manifest.

    A manifest of an earlier version names no sums.
    """
    with run.reading(MANIFEST, FROM_CHECKPOINT):
        sums = dict(run.read_json(MANIFEST, FROM_CHECKPOINT).get("sha256", {}))
    for name, digest in sums.items():
        with run.reading(name, FROM_CHECKPOINT):
            if sha256(run.read(name)) != digest:
                raise ValueError(f"its bytes differ from {MANIFEST}")
