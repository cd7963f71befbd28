"""Weight ensembling (Wortsman et al. 2022; FLYP's WE): (1 - α) θ_start + α θ, one α for all columns of a table, chosen on val."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from discl_ray.core.metrics import main_metric, scores
from discl_ray.train.images.table import ImageTable
from discl_ray.train.learners.learner import TrainJob
from discl_ray.train.loop import predictor_of

ALPHAS = tuple(i / 10 for i in range(11))


def ensembled(
    start: Mapping[str, Tensor], weights: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """(1 - α) θ_start + α θ; whole numbers, such as batch counts, are those of θ."""
    return {
        name: (1 - alpha) * start[name] + alpha * value if value.is_floating_point() else value
        for name, value in weights.items()
    }


def choose_alpha(
    job: TrainJob, start: Mapping[str, Tensor], weights: Mapping[str, Tensor], table: ImageTable
) -> float:
    """The α of ALPHAS with the best main metric on the table's val images (OOD val where there is one); of equals the largest."""
    rows = np.flatnonzero(table.role == "val")
    best = (-np.inf, 1.0)
    for alpha in ALPHAS:
        predict = predictor_of(job, ensembled(start, weights, alpha))
        found = scores(
            table.label[rows],
            predict(table.images[rows]).argmax(1).numpy(),
            job.groups,
            table.domain[rows],
        )
        best = max(best, (found[main_metric(found)][0], alpha))
    return best[1]
