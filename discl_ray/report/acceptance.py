# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""What a filter means for a spectrum, in words: its rule, how many real images it would accept, and what else to set."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.core.filter import FilterConfig, accepts_real, judge
from discl_ray.core.schema import VERDICT

DOUBTFUL = 0.5
"""Below this share of accepted real images the filter's fault is likelier than theirs."""

SHARES = (0.1, 0.5, 0.9)
"""Of the made images, to be kept by another setting."""


def rule_words(config: FilterConfig, mode: str) -> str:
    """What a mode asks of an image."""
    rules = {
        "absolute": f"text_sim ≥ {config.threshold:g}",
        "quantile": f"text_sim as that of all but {100 * config.quantile:g} % of the real images",
        "rank": "own class first" if config.rank == 1 else f"own class among the first {config.rank}",
    }
    return rules[mode]


def real_words(spectrum: pa.Table, config: FilterConfig) -> str:
    """How many of the real images the filter would accept, from the scores of an opened spectrum, and what to try if too few."""
    said = f"  of your real images this filter ({config.mode}: {rule_words(config, config.mode)}) would accept"
    found = accepts_real(spectrum, config)
    if found is None:
        return f"{said}: unknown, none has the score it goes by"
    accepted, n = found
    said += f" {100 * accepted / n:.0f} % ({accepted} of {n})"
    if accepted >= DOUBTFUL * n:
        return said
    other = "a smaller filter.quantile" if config.mode == "quantile" else "filter.mode=quantile"
    return f"{said}\n  warning: fewer than half; try {other}, another CLIP (scorer.model) or another prompt (prompts.filter)"


def nothing_kept_words(spectrum: pa.Table, config: FilterConfig) -> str:
    """Which settings of the filter would keep how many, if it keeps no image to train on; else nothing."""
    rows = spectrum.filter(pc.equal(spectrum["role"], "train"))
    if not rows.num_rows or pc.any(rows["kept"]).as_py():
        return ""
    others = other_settings(rows, config)
    if not others:
        return f"  warning: none of {rows.num_rows} images has a score; the table above says why"
    settings = ", ".join(f"{setting} would keep {kept}" for setting, kept in others.items())
    rule = f"{config.mode}: {rule_words(config, config.mode)}"
    return f"  warning: the filter ({rule}) keeps none of {rows.num_rows} images; {settings}, and makes nothing again"


def other_settings(rows: pa.Table, config: FilterConfig) -> dict[str, int]:
    """Settings that would keep about SHARES of the rows with a score -> how many each would keep; none if there is no score."""
    rows = rows.drop_columns(VERDICT.names)
    column = "text_rank" if config.mode == "rank" else "text_sim"
    scores = rows[column].drop_null().to_numpy().astype(np.float64)
    found: dict[str, int] = {}
    for share in SHARES if len(scores) else ():
        if config.mode == "rank":
            rank = int(np.quantile(scores, share, method="higher"))
            setting, update = f"filter.rank={rank}", {"rank": rank}
        else:
            threshold = math.floor(100 * np.quantile(scores, 1 - share, method="lower")) / 100
            mode = "" if config.mode == "absolute" else "filter.mode=absolute "
            setting, update = f"{mode}filter.threshold={threshold:g}", {"mode": "absolute", "threshold": threshold}
        found[setting] = pc.sum(judge(rows, config.model_copy(update=update))["kept"]).as_py()
    return found
