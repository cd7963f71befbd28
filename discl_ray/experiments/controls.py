"""Controls that ask what the generator brings with it: its own training images, retrieved, or learnt from first (SCIENCE §5).

Only the embedded tasks have them: there it is known what the generator was trained on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from discl_ray.core.lam import REAL
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.controller import LocalController
from discl_ray.curriculum.epoch_order import Pools, epoch_images
from discl_ray.embedded.digits import web_images
from discl_ray.models.device import training_device
from discl_ray.train.images.table import ImageTable
from discl_ray.train.job import start_epochs
from discl_ray.train.learners.learner import TrainJob
from discl_ray.train.loop import Report, loop

if TYPE_CHECKING:
    from discl_ray.plan.prompts import Prompts
    from discl_ray.score.config import ScorerConfig

POOL = 4000
"""Web images to look through or to learn from; the generator saw as many and more."""

LEVEL = 0
"""The level under which retrieved images stand in a table: they are what text alone gives."""


def retrieve(
    job: TrainJob, table: ImageTable, scorer: ScorerConfig, prompts: Prompts
) -> ImageTable:
    """A table whose synthetic training images are replaced by as many web images of the same classes.

    Of POOL web images those are taken whose closest class prompt is the class's, the most similar first, as one would from the web;
    their true class is not looked at. Where there are fewer, they are repeated by the sampler.
    """
    from discl_ray.score.clip import ClipScorer

    device = training_device(job.train.on_gpu, job.train.precision)
    clip, web = ClipScorer(scorer, device), web_images(POOL, seed=job.seed)
    texts = clip.embed_texts([prompts.filter(name) for name in job.names])
    similarity = clip.embed_images(list(web.images)) @ texts.T
    synthetic = (table.role == "train") & (table.lam_pct != REAL)
    images, labels = [], []
    for label in np.unique(table.label[synthetic]).tolist():
        mine = np.flatnonzero(similarity.argmax(1) == label)
        best = mine[np.argsort(-similarity[mine, label], kind="stable")][
            : np.count_nonzero(synthetic & (table.label == label))
        ]
        images.append(web.images[best])
        labels.append(np.full(len(best), label))
    keep, found = np.flatnonzero(~synthetic), np.concatenate(labels)
    count = len(found)
    return ImageTable(
        images=np.concatenate([table.images[keep], *images]),
        label=np.concatenate([table.label[keep], found]),
        lam_pct=np.concatenate([table.lam_pct[keep], np.full(count, LEVEL)]),
        role=np.concatenate([table.role[keep], np.full(count, "train")]),
        hard=np.concatenate([table.hard[keep], np.zeros(count, bool)]),
        domain=np.concatenate([table.domain[keep], np.full(count, "")]),
        sample_id=np.concatenate([table.sample_id[keep], np.full(count, "web")]),
    )


def pretrain(job: TrainJob) -> dict[str, Tensor]:
    """Weights after `start_steps` steps of plain cross-entropy on POOL web images."""
    web = web_images(POOL, seed=job.seed)
    plain = CurriculumConfig(strategy="real_only", epochs=0, share=None)
    table = ImageTable(
        images=web.images,
        label=web.labels,
        lam_pct=np.full(POOL, REAL),
        role=np.full(POOL, "train"),
        hard=np.zeros(POOL, bool),
    )
    train = job.train.model_copy(update={"loss": "ce"})
    first = replace(job, train=train, curriculum=plain, levels=(REAL,))
    pools = Pools.of(
        label=table.label,
        lam_pct=table.lam_pct,
        role=table.role,
        hard=table.hard,
        num_classes=len(job.counts),
    )
    epochs = start_epochs(first, epoch_images(pools, plain))
    return loop(first, table, LocalController(plain, (REAL,), job.seed), _ignore, epochs=epochs)


def _ignore(_report: Report) -> None:
    """Short enough to be done again."""
