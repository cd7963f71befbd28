"""Losses: one signature (logits, labels, class counts, tau) -> loss of each image, shape (N,).

Shapes: logits (N, C), labels (N,), counts (C,). Adjusted losses add the classes' log prior to the
logits while training, so that the logits themselves, used without it, belong to balanced classes.
Adding log n or log π = log n - log Σn makes no difference: softmax ignores a constant.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor, tau: float) -> Tensor:
    """-log softmax(z)[y]."""
    return F.cross_entropy(logits, labels, reduction="none")


def balanced_softmax(logits: Tensor, labels: Tensor, counts: Tensor, tau: float) -> Tensor:
    """-log softmax(z + log n)[y] with n the training images per class (Ren et al. 2020, Eq. 4)."""
    adjusted = logits + counts.log()
    return F.cross_entropy(adjusted, labels, reduction="none")


def logit_adjusted(logits: Tensor, labels: Tensor, counts: Tensor, tau: float) -> Tensor:
    """-log softmax(z + τ log π)[y] (Menon et al. 2021, Eq. 10); at τ = 1 Balanced Softmax."""
    adjusted = logits + tau * counts.log()
    return F.cross_entropy(adjusted, labels, reduction="none")


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "ce": cross_entropy,
    "balanced_softmax": balanced_softmax,
    "logit_adjusted": logit_adjusted,
}
"""Losses by name."""
