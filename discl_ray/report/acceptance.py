# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""What a filter means for a spectrum, in words: its rule, how many real images it would accept, and what else to set."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.core.lam import pct_to_lam
from discl_ray.core.schema import VERDICT
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.filter import accepts_real, best_attempts, judge

DOUBTFUL = 0.5
"""Below this share of accepted real images the filter's fault is likelier than theirs."""

SHARES = (0.1, 0.5, 0.9)
"""Of the made images, to be kept by another setting."""


def rule_words(config: FilterConfig, mode: str) -> str:
    """What a mode asks of an image."""
    rules = {
        "absolute": f"text_sim ≥ {config.threshold:g}",
        "quantile": f"text_sim as that of all but {100 * config.quantile:g} % of the real images",
        "rank": "own class first"
        if config.rank == 1
        else f"own class among the first {config.rank}",
    }
    return rules.get(mode, "a function of your own")


def made_words(spectrum: pa.Table, *, made_now: bool) -> str:
    """How many images an opened spectrum holds by what they are for, and whether this start made any of them."""
    trains = spectrum.filter(pc.equal(spectrum["role"], "train"))
    kept = pc.sum(trains["kept"]).as_py() or 0
    words = f"{trains.num_rows} images to train on, {kept} of them kept, and {spectrum.num_rows - trains.num_rows} probes"
    return f"made {words}" if made_now else f"nothing was left to make: {words}"


def real_words(spectrum: pa.Table, config: FilterConfig) -> str:
    """How many of the real images the filter would accept, from the scores of an opened spectrum, and what to do if too few."""
    said = f"  of your real images this filter ({config.mode}: {rule_words(config, config.mode)}) would accept"
    found = accepts_real(spectrum, config)
    if found is None:
        return f"{said}: unknown, none has the score it goes by"
    accepted, n = found
    said += f" {100 * accepted / n:.0f} % ({accepted} of {n} train images)"
    return said if accepted >= DOUBTFUL * n else f"{said}\n{_few_real_words(spectrum, config)}"


def _few_real_words(spectrum: pa.Table, config: FilterConfig) -> str:
    """What it may mean that a filter accepts few real images, by what it keeps of the most text-typical ones that were made.

    If it keeps few of those either, the CLIP does not know what the prompts say. If it keeps most of them it does, and it is the
    real images that are not what it knows by these prompts.
    """
    other = "a smaller filter.quantile" if config.mode == "quantile" else "filter.mode=quantile"
    tries = f"try {other}, another CLIP (scorer.model) or another prompt (prompts.filter)"
    found = _kept_by_level(spectrum)
    if not found:
        return f"  warning: fewer than half; {tries}"
    first, *_, last = found if len(found) > 1 else [*found, *found]
    if found[first] < DOUBTFUL:
        return (
            f"  warning: fewer than half, and of those made at λ = {pct_to_lam(first):g} it keeps {100 * found[first]:.0f} %: "
            f"this CLIP hardly knows the classes by these prompts; {tries}"
        )
    kept = " and ".join(
        f"{100 * found[level]:.0f} % at λ = {pct_to_lam(level):g}"
        for level in dict.fromkeys((first, last))
    )
    return (
        f"  note: fewer than half, but of those made it keeps {kept}: this CLIP knows the prompts, and the real images look unlike "
        f"what it knows by them (the sheet shows whether the class names fit)\n"
        f"  if too few are kept near λ = 1, {tries}"
    )


def _kept_by_level(spectrum: pa.Table) -> dict[int, float]:
    """`lam_pct` -> the share of its images to train on that is kept, ascending; levels without an image are left out."""
    rows = spectrum.filter(pc.equal(spectrum["role"], "train"))
    level, kept = (rows[name].to_numpy(zero_copy_only=False) for name in ("lam_pct", "kept"))
    images = best_attempts(rows)
    levels = np.unique(level[images]).tolist()
    return {
        lam_pct: kept[level == lam_pct].sum() / images[level == lam_pct].sum() for lam_pct in levels
    }


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
            setting, update = (
                f"{mode}filter.threshold={threshold:g}",
                {"mode": "absolute", "threshold": threshold},
            )
        found[setting] = pc.sum(judge(rows, config.model_copy(update=update))["kept"]).as_py()
    return found
