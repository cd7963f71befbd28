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
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core import outside
from discl_ray.core.columns import rows_where
from discl_ray.core.lam import REAL
from discl_ray.core.schema import VERDICT
from discl_ray.errors import DataError
from discl_ray.spectrum.config import FilterConfig

KEPT = ""
"""`reason` of a kept row."""


OWN = "filter"
"""`reason` of a row that a filter from outside rejects."""


class Scores(NamedTuple):
    """What the modes judge by, float32. A missing score is the worst there is and never passes."""

    text_sim: NDArray[np.float32]
    """CLIP cosine to the own class prompt by row, -inf where missing; shape (rows,)."""
    text_rank: NDArray[np.float32]
    """Rank of the own class by row, inf where missing; shape (rows,)."""
    sources: NDArray[np.float32]
    """CLIP cosine to the own class prompt of each real training image that has one; (sources,)."""

    @classmethod
    def of(cls, spectrum: pa.Table) -> Scores:
        """The scores of a spectrum table."""
        trains = rows_where(spectrum, role="train")
        scored = trains.filter(np.isfinite(_column(trains, "source_text_sim", missing=np.nan)))
        # All rows of a source have the same score. One thread keeps the order of the rows.
        by_source = scored.group_by("sample_id", use_threads=False)
        sources = by_source.aggregate([("source_text_sim", "last")])
        return cls(
            text_sim=_column(spectrum, "text_sim", missing=-np.inf),
            text_rank=_column(spectrum, "text_rank", missing=np.inf),
            sources=_column(sources, "source_text_sim_last", missing=np.nan),
        )


def _column(spectrum: pa.Table, name: str, *, missing: float) -> NDArray[np.float32]:
    """A column as float32, shape (rows,), with a value for null and NaN."""
    values = spectrum[name].to_numpy(zero_copy_only=False).astype(np.float32)
    return np.where(np.isnan(values), np.float32(missing), values)


def _absolute(config: FilterConfig, scores: Scores) -> NDArray[np.bool_]:
    return scores.text_sim >= config.threshold


def _quantile(config: FilterConfig, scores: Scores) -> NDArray[np.bool_]:
    if not len(scores.sources):
        raise DataError(
            "filter.mode = 'quantile': no real training image of this spectrum has a "
            "source_text_sim to take the quantile of; use filter.mode=rank or absolute, or "
            "generate and score under another run.name"
        )
    bar = np.quantile(scores.sources.astype(np.float64), config.quantile)
    # In float32 like the scores: a quantile that equals an image's own score must let it pass.
    return scores.text_sim >= np.float32(bar)


def _rank(config: FilterConfig, scores: Scores) -> NDArray[np.bool_]:
    return scores.text_rank <= config.rank


class Mode(NamedTuple):
    """A rule of the filter."""

    passes: Callable[[FilterConfig, Scores], NDArray[np.bool_]]
    """Verdict by row."""
    reason: str
    """`reason` of the rows it rejects."""
    needs: tuple[str, ...]
    """Fields of Scores without which it has nothing to judge by; the first is the rows' own."""


MODES: dict[str, Mode] = {
    "absolute": Mode(_absolute, "text_sim", ("text_sim",)),
    "quantile": Mode(_quantile, "text_sim", ("text_sim", "sources")),
    "rank": Mode(_rank, "rank", ("text_rank",)),
}


def _passes(spectrum: pa.Table, config: FilterConfig, scores: Scores) -> NDArray[np.bool_]:
    """Verdict of the configured mode by row, shape (rows,).

    Raises ConfigError if one from outside cannot be found, DataError if it gives something else.
    """
    if config.mode in MODES:
        return MODES[config.mode].passes(config, scores)
    found = np.asarray(outside.FILTERS.load(config.mode)(spectrum, config))
    if found.shape != (spectrum.num_rows,) or found.dtype != np.bool_:
        raise DataError(
            f"filter.mode = '{config.mode}': returned {found.dtype} of shape {found.shape}; "
            f"a bool for each of the {spectrum.num_rows} rows is needed"
        )
    return found


def _as_rows(real: pa.Table) -> pa.Table:
    """Real images as a filter from outside sees made ones: one row each, at λ = 1, own scores."""
    ones = np.ones(real.num_rows, np.float32)
    own = {
        "text_sim": real["source_text_sim_max"],
        "text_rank": real["source_text_rank_max"],
        "image_sim": pa.array(ones),
        "lam_pct": pa.array((REAL * ones).astype(np.int32)),
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
    rows = rows_where(spectrum, role="train")
    values = ("source_text_sim", "source_text_rank", "label")
    real = rows.group_by("sample_id").aggregate([(name, "max") for name in values])
    sims = _column(real, "source_text_sim_max", missing=-np.inf)
    ranks = _column(real, "source_text_rank_max", missing=np.inf)
    scores = Scores(text_sim=sims, text_rank=ranks, sources=sims[np.isfinite(sims)])
    needed = MODES[config.mode].needs[0] if config.mode in MODES else "text_sim"
    known = np.isfinite(getattr(scores, needed))
    if not known.any():
        return None
    accepted = _passes(_as_rows(real), config, scores) & known
    return int(accepted.sum()), int(known.sum())


def _made(spectrum: pa.Table) -> NDArray[np.bool_]:
    """Which rows hold an image."""
    return np.asarray(spectrum["status"].to_pylist()) == "ok"


def verdicts(spectrum: pa.Table, config: FilterConfig) -> dict[str, NDArray[np.bool_]]:
    """Pass or fail of every row by every mode, shape (rows,), before attempts are compared.

    Modes without scores are left out.
    """
    made, scores = _made(spectrum), Scores.of(spectrum)
    present = {name for name, values in scores._asdict().items() if np.isfinite(values).any()}
    return {
        name: made & mode.passes(config, scores)
        for name, mode in MODES.items()
        if present.issuperset(mode.needs)
    }


def best_attempts(spectrum: pa.Table) -> NDArray[np.bool_]:
    """One row per image, whatever the filter's verdict: of its attempts, the highest text_sim.

    Shape (rows,); attempts that gave no image do not count.
    """
    return _best_of(spectrum, _made(spectrum), _column(spectrum, "text_sim", missing=-np.inf))


def _best_of(
    spectrum: pa.Table, candidates: NDArray[np.bool_], text_sim: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Of the candidates for one image the one with the highest text_sim; of equals the first."""
    image = ("sample_id", "role", "lam_pct", "replica")
    keys = np.stack([_codes(spectrum[name]) for name in image], axis=1)
    rows = np.flatnonzero(candidates)
    by_image_then_score = np.lexsort((rows, -text_sim[rows], *keys[rows].T))
    rows = rows[by_image_then_score]
    ordered = keys[rows]
    first = np.ones(len(rows), bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(1)
    best = np.zeros(len(keys), bool)
    best[rows[first]] = True
    return best


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """An integer for each distinct value, null being one of them; shape (rows,)."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy().astype(np.int64)


def judge(spectrum: pa.Table, config: FilterConfig) -> pa.Table:
    """Adds `kept` and `reason` to a spectrum table (columns VERDICT); no image column is needed.

    Reasons: the row's own error, `text_sim` or `rank` for a score below the bar, `attempt` where
    another attempt scored higher. Raises DataError in mode `quantile` if no real training image
    has a score.
    """
    made, scores = _made(spectrum), Scores.of(spectrum)
    rejected = MODES[config.mode].reason if config.mode in MODES else OWN
    passes = _passes(spectrum, config, scores)
    best = _best_of(spectrum, made & passes, scores.text_sim)
    errors = np.array([error or "error" for error in spectrum["error"].to_pylist()], object)
    # Later lines overrule earlier ones.
    reasons = np.full(spectrum.num_rows, "attempt", object)
    reasons[best] = KEPT
    reasons[~passes] = rejected
    reasons[~made] = errors[~made]
    verdict = pa.table({"kept": reasons == KEPT, "reason": reasons}, schema=VERDICT)
    for name in VERDICT.names:
        spectrum = spectrum.append_column(name, verdict[name])
    return spectrum
