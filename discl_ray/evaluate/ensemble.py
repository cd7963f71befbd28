"""Weight ensembling (Wortsman et al. 2022; WE in FLYP): (1 - α) θ_start + α θ, α chosen on val."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from discl_ray.core.metrics import main_metric, scores
from discl_ray.train.images.table import ImageTable
from discl_ray.train.learners.learner import TrainJob
from discl_ray.train.loop import predictor_of

Weights = Mapping[str, Tensor]

ALPHAS = tuple(i / 10 for i in range(11))


def ensembled(start: Weights, weights: Weights, alpha: float) -> dict[str, Tensor]:
    """(1 - α) θ_start + α θ; integer tensors, such as batch counts, are those of θ."""
    mixed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.is_floating_point():
            before = (1 - alpha) * start[name]
            value = before + alpha * value
        mixed[name] = value
    return mixed


def choose_alpha(job: TrainJob, start: Weights, weights: Weights, table: ImageTable) -> float:
    """The α of ALPHAS with the best main metric on a table's val images; of equals the largest.

    One α serves all columns of a table: the metric is that of OOD val where there is one.
    """
    val = np.flatnonzero(table.role == "val")
    images = table.images[val]
    label = table.label[val]
    domain = table.domain[val]
    best_value, best_alpha = -np.inf, 1.0
    for alpha in ALPHAS:
        mixed = ensembled(start, weights, alpha)
        predict = predictor_of(job, mixed)
        predicted = predict(images).argmax(1).numpy()
        found = scores(label, predicted, job.groups, domain)
        value, _ = found[main_metric(found)]
        if value >= best_value:
            best_value, best_alpha = value, alpha
    return best_alpha
