"""What a filter does to a spectrum, in words.

Its rule, how many real images it would accept, and which other settings to try.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core.columns import rows_where, total
from discl_ray.core.lam import pct_to_lam
from discl_ray.core.schema import VERDICT
from discl_ray.data.wording import counted
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.filter import accepts_real, best_attempts, judge

DOUBTFUL = 0.5
"""A filter that accepts a smaller share of the real images is probably wrong about them."""

SHARES = (0.1, 0.5, 0.9)
"""Shares of the made images that other settings should keep."""


def rule_words(config: FilterConfig, mode: str) -> str:
    """What a filter mode requires of an image."""
    if mode == "absolute":
        return f"text_sim ≥ {config.threshold:g}"
    if mode == "quantile":
        rejected = 100 * config.quantile
        return f"text_sim as that of all but {rejected:g} % of the real images"
    if mode != "rank":
        return "a function of your own"
    if config.rank == 1:
        return "own class first"
    return f"own class among the first {config.rank}"


def _configured(config: FilterConfig) -> str:
    """The configured mode and its rule."""
    rule = rule_words(config, config.mode)
    return f"{config.mode}: {rule}"


def made_words(spectrum: pa.Table, *, made_now: bool) -> str:
    """How many images an opened spectrum holds by role, and whether this run made any of them."""
    trains = rows_where(spectrum, role="train")
    probes = spectrum.num_rows - trains.num_rows
    kept = total(trains["kept"])
    to_train = counted(trains.num_rows, "image")
    others = counted(probes, "probe")
    words = f"{to_train} to train on, {kept} of them kept, and {others}"
    if made_now:
        return f"made {words}"
    return f"nothing was left to make: {words}"


def real_words(spectrum: pa.Table, config: FilterConfig) -> str:
    """How many real images the filter would accept, from an opened spectrum, and what to try."""
    words = f"  of your real images this filter ({_configured(config)}) would accept"
    found = accepts_real(spectrum, config)
    if found is None:
        return f"{words}: unknown, none has the score that it uses"
    accepted, count = found
    share = 100 * accepted / count
    images = counted(count, "train image")
    words += f" {share:.0f} % ({accepted} of {images})"
    if accepted >= DOUBTFUL * count:
        return words
    remedies = _few_real_words(spectrum, config)
    return f"{words}\n{remedies}"


def _few_real_words(spectrum: pa.Table, config: FilterConfig) -> str:
    """What it may mean that a filter accepts few real images.

    That depends on how many it keeps of the most text-typical images that were made. If few, the
    CLIP does not know what the prompts say. If most, it does, and the real images do not look like
    what it knows by these prompts.
    """
    other = "a smaller filter.quantile" if config.mode == "quantile" else "filter.mode=quantile"
    tries = f"try {other}, another CLIP (scorer.model) or another prompt (prompts.filter)"
    found = _kept_by_lam(spectrum)
    if not found:
        return f"  warning: fewer than half; {tries}"
    lowest = min(found)
    highest = max(found)
    if found[lowest] < DOUBTFUL:
        lam = pct_to_lam(lowest)
        share = 100 * found[lowest]
        return (
            f"  warning: fewer than half, and of those made at λ = {lam:g} it keeps "
            f"{share:.0f} %: this CLIP hardly knows the classes by these prompts; "
            f"{tries}"
        )
    shares: list[str] = []
    for lam_pct in dict.fromkeys((lowest, highest)):
        lam = pct_to_lam(lam_pct)
        share = 100 * found[lam_pct]
        level = f"λ = {lam:g}"
        shares.append(f"{share:.0f} % at {level}")
    listed = " and ".join(shares)
    return (
        f"  note: fewer than half, but of those made it keeps {listed}: this CLIP "
        "knows the prompts, and the real images look unlike what it knows by them "
        "(the sheet shows whether the class names fit)\n"
        f"  if too few are kept near λ = 1, {tries}"
    )


def _kept_by_lam(spectrum: pa.Table) -> dict[int, float]:
    """By λ in percent, ascending: the share of its images to train on that is kept."""
    rows = rows_where(spectrum, role="train")
    images = best_attempts(rows)
    lam_pct = rows["lam_pct"].to_numpy()
    kept = rows["kept"].to_numpy(zero_copy_only=False)
    found: dict[int, float] = {}
    levels = np.unique(lam_pct[images]).tolist()
    for lam in levels:
        at_lam = lam_pct == lam
        count = images[at_lam].sum()
        of_them = kept[at_lam].sum()
        found[lam] = of_them / count
    return found


def nothing_kept_words(spectrum: pa.Table, config: FilterConfig) -> str:
    """If no image to train on is kept: which settings would keep how many; otherwise nothing."""
    rows = rows_where(spectrum, role="train")
    if not rows.num_rows or total(rows["kept"]):
        return ""
    others = other_settings(rows, config)
    images = counted(rows.num_rows, "image")
    if not others:
        return f"  warning: none of {images} has a score; the table above says why"
    parts: list[str] = []
    for setting, kept in others.items():
        parts.append(f"{setting} would keep {kept}")
    settings = ", ".join(parts)
    rule = _configured(config)
    return (
        f"  warning: the filter ({rule}) keeps none of {images}; "
        f"{settings}, and makes nothing again"
    )


def other_settings(rows: pa.Table, config: FilterConfig) -> dict[str, int]:
    """Settings that would keep about SHARES of the rows with a score, and how many each would keep.

    Empty if there is no score.
    """
    rows = rows.drop_columns(VERDICT.names)
    column = "text_rank" if config.mode == "rank" else "text_sim"
    known = rows[column].drop_null()
    scores = known.to_numpy().astype(np.float64)
    found: dict[str, int] = {}
    if not len(scores):
        return found
    for share in SHARES:
        update = _update_for(config, scores, share)
        other = config.model_copy(update=update)
        judged = judge(rows, other)
        setting = _setting_words(config, update)
        found[setting] = total(judged["kept"])
    return found


def _update_for(
    config: FilterConfig, scores: NDArray[np.float64], share: float
) -> dict[str, object]:
    """Values of a filter's keys that keep about a share of some scores, shape (rows,)."""
    if config.mode == "rank":
        rank = np.quantile(scores, share, method="higher")
        return {"rank": int(rank)}
    lowest = np.quantile(scores, 1 - share, method="lower")
    # rounded down to two digits, which people can type, so that a few more are kept
    threshold = math.floor(100 * lowest) / 100
    return {"mode": "absolute", "threshold": threshold}


def _setting_words(config: FilterConfig, update: dict[str, object]) -> str:
    """The overrides of the keys that differ from the configuration's; the score's key always."""
    if "rank" in update:
        rank = update["rank"]
        return f"filter.rank={rank}"
    value = update["threshold"]
    threshold = f"filter.threshold={value:g}"
    if config.mode == "absolute":
        return threshold
    return f"filter.mode=absolute {threshold}"
