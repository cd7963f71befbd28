"""The filter: which synthetic images may be trained on, from stored scores alone.

Scores lie in the spectrum; verdicts are computed whenever it is opened. Another threshold is another query and makes no image.

    absolute   text_sim >= threshold; the paper's 0.30 (ImageNet-LT) and 0.25 (iWildCam) hold for OpenAI's ViT-B/32 only
    rank       the own class is among the `rank` best of all class prompts; needs no calibration, hence the default

Of several attempts at one image (same sample, λ, replica) the one with the highest text_sim is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from discl_ray.core.schema import VERDICT
from discl_ray.core.settings import Settings

KEPT = ""
"""`reason` of a kept row."""


class FilterConfig(Settings):
    """How stored scores become a verdict."""

    mode: Literal["absolute", "rank"] = "rank"
    threshold: float = Field(default=0.30, ge=-1, le=1)
    """Least text_sim in mode `absolute` (cosine)."""
    rank: int = Field(default=1, ge=1)
    """Worst rank of the own class in mode `rank`; 1 = the own class is the closest."""


def _absolute(config: FilterConfig, text_sim: NDArray[np.float32], text_rank: NDArray[np.int32]) -> NDArray[np.bool_]:
    return text_sim >= config.threshold


def _rank(config: FilterConfig, text_sim: NDArray[np.float32], text_rank: NDArray[np.int32]) -> NDArray[np.bool_]:
    return text_rank <= config.rank


MODES: dict[str, Callable[[FilterConfig, NDArray[np.float32], NDArray[np.int32]], NDArray[np.bool_]]] = {
    "absolute": _absolute,
    "rank": _rank,
}


def judge(spectrum: pa.Table, config: FilterConfig) -> pa.Table:
    """Adds `kept` and `reason` to a spectrum table (columns VERDICT); the image column is not needed.

    Reasons: the row's own error, `text_sim` or `rank` for a score below the bar, `attempt` for a try that another one beat.
    """
    ok = np.asarray(spectrum["status"].to_pylist()) == "ok"
    text_sim = np.nan_to_num(spectrum["text_sim"].to_numpy(zero_copy_only=False).astype(np.float32), nan=-2.0)
    text_rank = np.asarray([r if r is not None else np.iinfo(np.int32).max for r in spectrum["text_rank"].to_pylist()])
    passes = MODES[config.mode](config, text_sim, text_rank)
    best: dict[tuple[object, ...], int] = {}
    names = ("sample_id", "role", "lam_pct", "replica")
    keys = list(zip(*(spectrum[name].to_pylist() for name in names), strict=True))
    for i in np.flatnonzero(ok & passes):
        if keys[i] not in best or text_sim[i] > text_sim[best[keys[i]]]:
            best[keys[i]] = int(i)
    below = "text_sim" if config.mode == "absolute" else "rank"
    reasons = [
        (error or "error") if not ok[i] else below if not passes[i] else KEPT if best[keys[i]] == i else "attempt"
        for i, error in enumerate(spectrum["error"].to_pylist())
    ]
    verdict = pa.table({"kept": [r == KEPT for r in reasons], "reason": reasons}, schema=VERDICT)
    for name in VERDICT.names:
        spectrum = spectrum.append_column(name, verdict[name])
    return spectrum
