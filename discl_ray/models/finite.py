"""Are a loaded model's weights numbers? A file cut or garbled in its middle, or a diverged training, leaves NaN and infinity."""

from __future__ import annotations

import torch
from torch import nn

SHOWN = 3
"""Names that a refusal cites."""


def check_finite(model: nn.Module) -> None:
    """Raises ValueError, naming the first weights that hold NaN or infinity; integers and the meta device have none."""
    state = model.state_dict()
    real = {
        name: tensor
        for name, tensor in state.items()
        if tensor.is_floating_point() and not tensor.is_meta
    }
    broken = [name for name, tensor in real.items() if not bool(torch.isfinite(tensor).all())]
    if not broken:
        return
    shown = ", ".join(broken[:SHOWN]) + (", …" if len(broken) > SHOWN else "")
    raise ValueError(
        f"{len(broken)} of {len(state)} weights hold NaN or infinity ({shown}); download or copy them again, "
        "or load what float16 cannot hold in bfloat16 or float32"
    )
