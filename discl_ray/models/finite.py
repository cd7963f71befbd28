"""Checks that a loaded model's weights are finite.

A file that is cut or damaged in its middle, or a training that diverged, leaves NaN and infinity.
"""

from __future__ import annotations

import torch
from torch import nn

SHOWN = 3
"""Names that an error lists."""


def check_finite(model: nn.Module) -> None:
    """Raises ValueError, naming the first weights that hold NaN or infinity."""
    state = model.state_dict()
    broken: list[str] = []
    for name, tensor in state.items():
        # integers are always finite, and the meta device has no numbers
        if not tensor.is_floating_point() or tensor.is_meta:
            continue
        if not torch.isfinite(tensor).all():
            broken.append(name)
    if not broken:
        return
    shown = ", ".join(broken[:SHOWN])
    more = ", …" if len(broken) > SHOWN else ""
    raise ValueError(
        f"{len(broken)} of {len(state)} weights hold NaN or infinity ({shown}{more}); download or "
        "copy them again, or load what float16 cannot hold in bfloat16 or float32"
    )
