"""Controls for what the generator brings with it: its training images, retrieved or learnt from.

Do synthetic images help more than the images the generator was trained on (SCIENCE §5)?

Only the embedded tasks have them: there it is known what the generator was trained on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
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
"""Web images to retrieve from or to learn from; the generator saw at least as many."""

RETRIEVED_LAM = 0
"""λ in percent of retrieved images in a table: like images of λ = 0 they follow from text alone."""


def retrieve(
    job: TrainJob, table: ImageTable, scorer: ScorerConfig, prompts: Prompts
) -> ImageTable:
    """A table whose synthetic training images are replaced by as many web images of their classes.

    Of POOL web images a class gets those whose closest class prompt is its own, the most similar
    first, as one would retrieve them from the web; their true class is not looked at. Where there
    are fewer, the sampler repeats them.
    """
    from discl_ray.score.clip import ClipScorer

    device = training_device(job.train.on_gpu, job.train.precision)
    clip = ClipScorer(scorer, device)
    web = web_images(POOL, seed=job.seed)
    class_prompts = [prompts.filter(name) for name in job.names]
    texts = clip.embed_texts(class_prompts)
    images = clip.embed_images(list(web.images))
    similarity = images @ texts.T
    synthetic = (table.role == "train") & (table.lam_pct != REAL)
    labels = table.label[synthetic]
    predicted = similarity.argmax(1)
    retrieved: list[NDArray[np.int64]] = []
    for label in np.unique(labels).tolist():
        candidates = np.flatnonzero(predicted == label)
        own = similarity[candidates, label]
        most_similar_first = np.argsort(-own, kind="stable")
        wanted = np.count_nonzero(labels == label)
        chosen = most_similar_first[:wanted]
        retrieved.append(candidates[chosen])
    found = np.concatenate(retrieved)
    count = len(found)
    keep = np.flatnonzero(~synthetic)
    return ImageTable(
        images=np.concatenate([table.images[keep], web.images[found]]),
        label=np.concatenate([table.label[keep], predicted[found]]),
        lam_pct=np.concatenate([table.lam_pct[keep], np.full(count, RETRIEVED_LAM)]),
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
    images = epoch_images(pools, plain)
    epochs = start_epochs(first, images)
    controller = LocalController(plain, first.levels, job.seed)
    return loop(first, table, controller, _ignore, epochs=epochs)


def _ignore(_report: Report) -> None:
    """Saves nothing: short enough to be done again."""
