"""Losses: one signature (logits, labels, class counts) -> sum over the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """-sum_i log softmax(z_i)[y_i]."""
    return F.cross_entropy(logits, labels, reduction="sum")


def balanced_softmax(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """-sum_i log softmax(z_i + log n)[y_i] with n the real training images per class (Ren et al. 2020, Eq. 4)."""
    return F.cross_entropy(logits + counts.log(), labels, reduction="sum")


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "balanced_softmax": balanced_softmax,
}
"""Losses by name."""
