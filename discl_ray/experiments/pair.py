"""The configured row beside the baseline: both from the same start, with as many steps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from discl_ray.cluster.session import ray_session
from discl_ray.config import Config
from discl_ray.core.metrics import Scores
from discl_ray.experiments.rows import CE, SHARED, SHARED_WORDS, PlannedRun, RowSpec, strategy_name
from discl_ray.experiments.training import evaluate_on_test, train_row
from discl_ray.spectrum.open import Spectrum

log = logging.getLogger(__name__)

SHORT = {"ce": "CE", "balanced_softmax": "BS", "logit_adjusted": "logit-adjusted"}


class TrainedRow(NamedTuple):
    """One trained and tested row."""

    label: str
    planned: PlannedRun
    weights: dict[str, Tensor]
    """State of the model by parameter name."""
    scores: Scores
    """On test."""
    history: list[dict[str, Any]]
    """What was measured, an epoch a dict."""


def pair_of(config: Config) -> tuple[RowSpec, ...]:
    """The baseline and what is configured; one row where that is the baseline."""
    name = strategy_name(config.curriculum)
    if config.train.model == "clip":
        base = RowSpec(label="FLYP", values=(("curriculum.strategy", "real_only"),))
        asked = RowSpec(label=f"FLYP + {name}")
    else:
        base = CE
        loss = SHORT[config.train.loss]
        asked = RowSpec(label=f"{loss} + {name}")
    if base.of(config) == asked.of(config):
        return (base,)
    return base, asked


def train_pair(config: Config, spectrum: Spectrum, specs: Sequence[RowSpec]) -> list[TrainedRow]:
    """Trains and tests the rows of `pair_of`; finished runs are not trained again."""
    from discl_ray.train.run_files import read_history

    trained: list[TrainedRow] = []
    with ray_session(num_cpus=config.run.num_cpus, needs={}):
        start = None
        if config.train.start_steps:
            log.info("%s", SHARED_WORDS)
            _, start = train_row(config, spectrum, label=SHARED, start=None, is_start=True)
        log.info("%s", _words(config, specs))
        for spec in specs:
            own = spec.of(config)
            planned, weights = train_row(own, spectrum, label=spec.label, start=start)
            scores = evaluate_on_test(planned, weights, spectrum)
            history = read_history(planned.store)
            row = TrainedRow(spec.label, planned, weights, scores, history)
            trained.append(row)
    return trained


def _words(config: Config, specs: Sequence[RowSpec]) -> str:
    """What the rows to come are."""
    base, *more = [spec.label for spec in specs]
    first = f"{base}: real images alone, the baseline"
    if not more:
        return first
    asked = more[0]
    strategy = config.curriculum.strategy
    return f"{first}; {asked}: curriculum.strategy = {strategy}; as many steps each"
