"""The filter: which synthetic images may be trained on, from stored scores alone.

Scores are stored in the spectrum; verdicts are computed whenever it is opened. Another threshold
is another query and makes no image.

    absolute   text_sim >= threshold; the paper's 0.30 (ImageNet-LT) and 0.25 (iWildCam) hold for
               OpenAI's ViT-B/32 only
    quantile   text_sim >= the text_sim that all but a share of the real images reach; calibrates
               itself to scorer and prompts
    rank       the own class is among the `rank` best of all class prompts; needs no calibration,
               hence the default

Of several attempts at one image (same sample, λ, replica) the one with the highest text_sim is
kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core import outside
from discl_ray.core.columns import as_numpy, choose, equal, fill_null, rows_where
from discl_ray.core.lam import REAL
from discl_ray.core.schema import VERDICT
from discl_ray.errors import DataError
from discl_ray.spectrum.config import FilterConfig

Flags: TypeAlias = NDArray[np.bool_]
"""Yes or no for each row, shape (rows,)."""

Values: TypeAlias = NDArray[np.float32]
"""A number for each row, shape (rows,)."""

KEPT = ""
"""`reason` of a kept row."""

OWN = "filter"
"""`reason` of a row that a filter from outside rejects."""

IMAGE = ("sample_id", "role", "lam_pct", "replica")
"""Columns whose values are equal in all attempts at one image, and differ between images."""


class Scores(NamedTuple):
    """What the modes judge by, float32. A missing score is the worst there is and never passes."""

    text_sim: Values
    """CLIP cosine to the own class prompt by row, -inf where missing; shape (rows,)."""
    text_rank: Values
    """Rank of the own class by row, inf where missing; shape (rows,)."""
    sources: Values
    """CLIP cosine to the own class prompt of each real training image that has one; (sources,)."""

    @classmethod
    def of(cls, spectrum: pa.Table) -> Scores:
        """The scores of a spectrum table."""
        # Few columns: a filter copies all that a table has.
        rows = spectrum.select(["sample_id", "role", "source_text_sim"])
        trains = rows_where(rows, role="train")
        has_score = np.isfinite(_column(trains, "source_text_sim", missing=np.nan))
        scored = trains.filter(has_score)
        # All rows of a source have the same score. One thread keeps the order of the rows.
        by_source = scored.group_by("sample_id", use_threads=False)
        sources = by_source.aggregate([("source_text_sim", "last")])
        return cls(
            text_sim=_column(spectrum, "text_sim", missing=-np.inf),
            text_rank=_column(spectrum, "text_rank", missing=np.inf),
            sources=_column(sources, "source_text_sim_last", missing=np.nan),
        )


def _column(spectrum: pa.Table, name: str, *, missing: float) -> Values:
    """A column as float32, shape (rows,), with a value for null and NaN."""
    column = spectrum[name].to_numpy(zero_copy_only=False)
    values = column.astype(np.float32)
    absent = np.isnan(values)
    return np.where(absent, np.float32(missing), values)


def _absolute(config: FilterConfig, scores: Scores) -> Flags:
    """Mode `absolute`: an image must reach the configured cosine."""
    return scores.text_sim >= config.threshold


def _quantile(config: FilterConfig, scores: Scores) -> Flags:
    """Mode `quantile`: an image must reach what all but a share of the real images reach.

    Raises DataError if no real image has a score.
    """
    if not len(scores.sources):
        raise DataError(
            "filter.mode = 'quantile': no real training image of this spectrum has a "
            "source_text_sim to take the quantile of; use filter.mode=rank or absolute, or "
            "generate and score under another run.name"
        )
    real = scores.sources.astype(np.float64)
    bar = np.quantile(real, config.quantile)
    # In float32 like the scores: a quantile that equals an image's own score must let it pass.
    return scores.text_sim >= np.float32(bar)


def _rank(config: FilterConfig, scores: Scores) -> Flags:
    """Mode `rank`: the own class must be among the `rank` best."""
    return scores.text_rank <= config.rank


class Mode(NamedTuple):
    """A rule of the filter."""

    passes: Callable[[FilterConfig, Scores], Flags]
    """Verdict by row."""
    reason: str
    """`reason` of the rows it rejects."""
    needs: tuple[str, ...]
    """Fields of Scores without which it has nothing to judge by; the first is the rows' own."""


MODES: dict[str, Mode] = {
    "absolute": Mode(passes=_absolute, reason="text_sim", needs=("text_sim",)),
    "quantile": Mode(passes=_quantile, reason="text_sim", needs=("text_sim", "sources")),
    "rank": Mode(passes=_rank, reason="rank", needs=("text_rank",)),
}


def _passes(spectrum: pa.Table, config: FilterConfig, scores: Scores) -> Flags:
    """Verdict of the configured mode by row, shape (rows,).

    Raises ConfigError if one from outside cannot be found or raises something, DataError if it
    gives something else.
    """
    if config.mode in MODES:
        return MODES[config.mode].passes(config, scores)
    judge_rows = outside.FILTERS.load(config.mode)
    named = f"filter.mode = '{config.mode}'"
    with outside.calling(named, judge_rows):
        given = judge_rows(spectrum, config)
        found = np.asarray(given)
    one_a_row = found.shape == (spectrum.num_rows,)
    if not one_a_row or found.dtype != np.bool_:
        what = "None" if given is None else f"{found.dtype} of shape {found.shape}"
        raise DataError(
            f"{named}: returned {what}; a bool for each of the {spectrum.num_rows} rows is needed"
        )
    return found


def _as_rows(real: pa.Table) -> pa.Table:
    """Real images as a filter from outside sees made ones: one row each, at λ = 1, own scores."""
    rows = real.num_rows
    own = {
        "text_sim": real["source_text_sim_max"],
        "text_rank": real["source_text_rank_max"],
        "image_sim": pa.array(np.ones(rows, np.float32)),
        "lam_pct": pa.array(np.full(rows, REAL, np.int32)),
        "sample_id": real["sample_id"],
        "label": real["label_max"],
        "source_text_sim": real["source_text_sim_max"],
        "source_text_rank": real["source_text_rank_max"],
    }
    return pa.table(own)


def accepts_real(spectrum: pa.Table, config: FilterConfig) -> tuple[int, int] | None:
    """How many of the real training images of a spectrum the filter would accept, and of how many.

    None if no image has the score that the mode uses: none was made, or the version that scored
    the spectrum did not store it.
    """
    real = _real_images(spectrum)
    sims = _column(real, "source_text_sim_max", missing=-np.inf)
    scores = Scores(
        text_sim=sims,
        text_rank=_column(real, "source_text_rank_max", missing=np.inf),
        sources=sims[np.isfinite(sims)],
    )
    # A filter from outside judges by whatever it likes; what has no text_sim was never scored.
    needed = "text_sim"
    if config.mode in MODES:
        needed = MODES[config.mode].needs[0]
    known = np.isfinite(getattr(scores, needed))
    total = int(known.sum())
    if not total:
        return None
    passes = _passes(_as_rows(real), config, scores)
    accepted = passes & known
    return int(accepted.sum()), total


def _real_images(spectrum: pa.Table) -> pa.Table:
    """One row for each real training image: `sample_id`, its scores and `label`, named `…_max`.

    All rows of an image hold the same values, or null: the maximum is the value.
    """
    values = ("source_text_sim", "source_text_rank", "label")
    rows = rows_where(spectrum.select(["sample_id", "role", *values]), role="train")
    by_source = rows.group_by("sample_id")
    return by_source.aggregate([(name, "max") for name in values])


def _made(spectrum: pa.Table) -> Flags:
    """Which rows hold an image, shape (rows,)."""
    made = equal(spectrum["status"], "ok")
    return as_numpy(fill_null(made, False))


def verdicts(spectrum: pa.Table, config: FilterConfig) -> dict[str, Flags]:
    """Pass or fail of every row by every mode, shape (rows,), before attempts are compared.

    Modes without scores are left out.
    """
    made = _made(spectrum)
    scores = Scores.of(spectrum)
    present: set[str] = set()
    for name, values in scores._asdict().items():
        known = np.isfinite(values)
        if known.any():
            present.add(name)
    found: dict[str, Flags] = {}
    for name, mode in MODES.items():
        if present.issuperset(mode.needs):
            found[name] = made & mode.passes(config, scores)
    return found


def best_attempts(spectrum: pa.Table) -> Flags:
    """One row per image, whatever the filter's verdict: of its attempts, the highest text_sim.

    Shape (rows,); attempts that gave no image do not count.
    """
    text_sim = _column(spectrum, "text_sim", missing=-np.inf)
    return _best_of(spectrum, _made(spectrum), text_sim)


def _best_of(spectrum: pa.Table, candidates: Flags, text_sim: Values) -> Flags:
    """Of the candidates for one image the one with the highest text_sim; of equals the first.

    `candidates`, `text_sim` and the result have shape (rows,).
    """
    rows = np.flatnonzero(candidates)
    images = _images(spectrum)[rows]
    if len(np.unique(images)) == len(rows):
        return candidates
    # lexsort sorts by its last key first: by image, then score, then place in the table.
    order = np.lexsort((rows, -text_sim[rows], images))
    ordered = images[order]
    first_of_image = np.ones(len(rows), bool)
    first_of_image[1:] = ordered[1:] != ordered[:-1]
    best = np.zeros(len(candidates), bool)
    best[rows[order[first_of_image]]] = True
    return best


def _images(spectrum: pa.Table) -> NDArray[np.int64]:
    """A number for each image, equal in all attempts at it; shape (rows,)."""
    images = np.zeros(spectrum.num_rows, np.int64)
    for name in IMAGE:
        codes = _codes(spectrum[name])
        images = images * (codes.max(initial=0) + 1) + codes
    return images


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """An integer for each distinct value, null being one of them; shape (rows,)."""
    whole = column.combine_chunks()
    encoded = whole.dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy().astype(np.int64)


def judge(spectrum: pa.Table, config: FilterConfig) -> pa.Table:
    """Adds `kept` and `reason` to a spectrum table (columns VERDICT); no image column is needed.

    Reasons: the row's own error, `text_sim` or `rank` for a score below the bar, `attempt` where
    another attempt scored higher. Raises DataError in mode `quantile` if no real training image
    has a score.
    """
    made = _made(spectrum)
    scores = Scores.of(spectrum)
    passes = _passes(spectrum, config, scores)
    best = _best_of(spectrum, made & passes, scores.text_sim)
    rejected = OWN
    if config.mode in MODES:
        rejected = MODES[config.mode].reason
    errors = fill_null(spectrum["error"].cast(pa.string()), "")
    errors = choose(equal(errors, ""), "error", errors)
    # Later lines overrule earlier ones.
    reasons = choose(pa.array(best), KEPT, "attempt")
    reasons = choose(pa.array(passes), reasons, rejected)
    reasons = choose(pa.array(made), reasons, errors)
    verdict = pa.table({"kept": best, "reason": reasons}, schema=VERDICT)
    for name in VERDICT.names:
        spectrum = spectrum.append_column(name, verdict[name])
    return spectrum
