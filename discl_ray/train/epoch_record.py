"""What is recorded of an epoch: its stage, and its evaluation."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from discl_ray.core.lam import pct_to_lam
from discl_ray.core.metrics import Scores
from discl_ray.curriculum.progress import unpaired
from discl_ray.train.batches import Pass

log = logging.getLogger(__name__)


def stage_record(stage: Pass, loss: float) -> dict[str, Any]:
    """The record of an epoch's stage, whose mean loss is given."""
    order = stage.order
    choice = stage.choice
    record = {
        "loss": loss,
        "lam": pct_to_lam(choice.lam_pct),
        "lam_pct": choice.lam_pct,
        "synthetic": order.synthetic,
        "hard": order.hard,
        "borrowed": order.borrowed,
        "borrowed_real": order.real,
        "share": order.share,
        "images": stage.total,
    }
    # JSON has no infinity, which is the lead where there is no error
    if choice.lead is not None and math.isfinite(choice.lead):
        record["lead_in_se"] = choice.lead
    return record


def val_record(found: Scores) -> dict[str, float]:
    """The record of scores on val; those of no images are left out."""
    record: dict[str, float] = {}
    for (metric, group), (value, _) in found.items():
        if not math.isnan(value):
            record[f"val_{metric}_{group}"] = value
    return record


def warn_of_unpaired(history: Mapping[str, Mapping[str, Any]]) -> None:
    """Warns of epochs that earlier versions recorded without progress by source."""
    epochs = unpaired(list(history.values()))
    if not epochs:
        return
    subject = "1 epoch of this run was" if epochs == 1 else f"{epochs} epochs of this run were"
    log.warning(
        "%s recorded without progress by source: leads in them are in standard errors that are "
        "not paired; those of the epochs to come are",
        subject,
    )
