"""The filter: which synthetic images may be trained on, from stored scores alone.

Scores lie in the spectrum; verdicts are computed whenever it is opened. Another threshold is another query and makes no image.

    absolute   text_sim >= threshold; the paper's 0.30 (ImageNet-LT) and 0.25 (iWildCam) hold for OpenAI's ViT-B/32 only
    quantile   text_sim >= the text_sim that all but a share of the real images reach; calibrates itself to scorer and prompts
    rank       the own class is among the `rank` best of all class prompts; needs no calibration, hence the default

Of several attempts at one image (same sample, λ, replica) the one with the highest text_sim is kept.
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
    """What the modes judge by, float32. Where a row has no score it has the worst there is, which passes nowhere."""

    text_sim: NDArray[np.float32]
    """CLIP cosine to the own class prompt by row, -inf where missing; shape (rows,)."""
    text_rank: NDArray[np.float32]
    """Rank of the own class by row, inf where missing; shape (rows,)."""
    sources: NDArray[np.float32]
    """CLIP cosine of each real training image that has one to its own class prompt, however many rows it has; (sources,)."""

    @classmethod
    def of(cls, spectrum: pa.Table) -> Scores:
        """The scores of a spectrum table."""
        by_row = zip(
            *(spectrum[n].to_pylist() for n in ("sample_id", "role", "source_text_sim")),
            strict=True,
        )
        sources = {
            sample_id: sim
            for sample_id, role, sim in by_row
            if role == "train" and sim is not None and np.isfinite(sim)
        }
        return cls(
            text_sim=_column(spectrum, "text_sim", missing=-np.inf),
            text_rank=_column(spectrum, "text_rank", missing=np.inf),
            sources=np.array(list(sources.values()), np.float32),
        )


def _column(spectrum: pa.Table, name: str, *, missing: float) -> NDArray[np.float32]:
    values = spectrum[name].to_numpy(zero_copy_only=False).astype(np.float32)
    return np.where(np.isnan(values), np.float32(missing), values)


def _absolute(config: FilterConfig, scores: Scores) -> NDArray[np.bool_]:
    return scores.text_sim >= config.threshold


def _quantile(config: FilterConfig, scores: Scores) -> NDArray[np.bool_]:
    if not len(scores.sources):
        raise DataError(
            "filter.mode = 'quantile': no real training image of this spectrum has a source_text_sim to take the quantile of; "
            "use filter.mode=rank or absolute, or generate and score under another run.name"
        )
    # In float32 like the scores: a quantile that falls on an image's own score is that score, and passes.
    return scores.text_sim >= np.float32(
        np.quantile(scores.sources.astype(np.float64), config.quantile)
    )


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
    """Real images, one a row, as a filter from outside sees made ones: at λ = 1, with their own scores."""
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

    None if no image has the score the mode goes by: none was made, or the spectrum was scored before that score was stored.
    """
    rows = rows_where(spectrum, role="train")
    real = rows.group_by("sample_id").aggregate(
        [("source_text_sim", "max"), ("source_text_rank", "max"), ("label", "max")]
    )
    sims = _column(real, "source_text_sim_max", missing=-np.inf)
    scores = Scores(
        sims, _column(real, "source_text_rank_max", missing=np.inf), sims[np.isfinite(sims)]
    )
    needed = MODES[config.mode].needs[0] if config.mode in MODES else "text_sim"
    known = np.isfinite(getattr(scores, needed))
    if not known.any():
        return None
    return int((_passes(_as_rows(real), config, scores) & known).sum()), int(known.sum())


def _made(spectrum: pa.Table) -> NDArray[np.bool_]:
    """Which rows hold an image."""
    return np.asarray(spectrum["status"].to_pylist()) == "ok"


def verdicts(spectrum: pa.Table, config: FilterConfig) -> dict[str, NDArray[np.bool_]]:
    """Pass or fail of every row by every mode, shape (rows,), before attempts are compared; modes without scores are left out."""
    made, scores = _made(spectrum), Scores.of(spectrum)
    there = {name for name, values in scores._asdict().items() if np.isfinite(values).any()}
    return {
        name: made & mode.passes(config, scores)
        for name, mode in MODES.items()
        if there.issuperset(mode.needs)
    }


def best_attempts(spectrum: pa.Table) -> NDArray[np.bool_]:
    """One row of each image, whatever the filter says of it: of its attempts that gave one, that with the highest text_sim."""
    return _best_of(spectrum, _made(spectrum), _column(spectrum, "text_sim", missing=-np.inf))


def _best_of(
    spectrum: pa.Table, candidates: NDArray[np.bool_], text_sim: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Of the candidates for one image the one with the highest text_sim; of equals the first."""
    keys = np.stack(
        [_codes(spectrum[name]) for name in ("sample_id", "role", "lam_pct", "replica")], axis=1
    )
    rows = np.flatnonzero(candidates)
    rows = rows[np.lexsort((rows, -text_sim[rows], *keys[rows].T))]
    first = np.ones(len(rows), bool)
    first[1:] = (keys[rows][1:] != keys[rows][:-1]).any(1)
    best = np.zeros(len(keys), bool)
    best[rows[first]] = True
    return best


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """An integer for each distinct value, null being one of them; shape (rows,)."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy().astype(np.int64)


def judge(spectrum: pa.Table, config: FilterConfig) -> pa.Table:
    """Adds `kept` and `reason` to a spectrum table (columns VERDICT); the image column is not needed.

    Reasons: the row's own error, `text_sim` or `rank` for a score below the bar, `attempt` for a try that another one beat.
    Raises DataError in mode `quantile` if no real training image has a score.
    """
    ok, scores = _made(spectrum), Scores.of(spectrum)
    rejected = MODES[config.mode].reason if config.mode in MODES else OWN
    passes = _passes(spectrum, config, scores)
    best = _best_of(spectrum, ok & passes, scores.text_sim)
    reasons = [
        (error or "error")
        if not ok[i]
        else rejected
        if not passes[i]
        else KEPT
        if best[i]
        else "attempt"
        for i, error in enumerate(spectrum["error"].to_pylist())
    ]
    verdict = pa.table({"kept": [r == KEPT for r in reasons], "reason": reasons}, schema=VERDICT)
    for name in VERDICT.names:
        spectrum = spectrum.append_column(name, verdict[name])
    return spectrum
