"""The batches of one pass over some rows of the image table: a worker's share of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from discl_ray.core.arrays import Ints
from discl_ray.core.lam import pct_to_lam
from discl_ray.curriculum.epoch_order import EpochOrder
from discl_ray.curriculum.strategies import Choice
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.train.augment.augment import draw_parameters
from discl_ray.train.augment.mixup import Mix, draw_mix
from discl_ray.train.images.table import ImageTable
from discl_ray.train.learners.learner import Batch, TrainJob, World

Places = Ints
"""Places in the order of a pass, from 0, shape (n,)."""

NAMED = 8
"""Images that an error message names."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Rows to train on in order: an epoch, or one of the two parts of an adaptive one."""

    epoch: int
    """From 1."""
    choice: Choice
    order: EpochOrder
    before: int
    """Images of the epoch that come before this pass."""
    total: int
    """Images of the epoch."""


class Batches:
    """A worker's share of each global batch of a pass. All random numbers follow from the place.

    Raises IntegrityError if a row must not be trained on, DisclError if no batch can be filled.
    """

    def __init__(
        self,
        job: TrainJob,
        table: ImageTable,
        part: Pass,
        *,
        strength: Ints,
        world: World,
        whole: bool,
    ) -> None:
        self.job = job
        self.table = table
        self.part = part
        self.strength = strength
        self.world = world
        rows = part.order.rows
        if (table.role[rows] != "train").any():
            raise IntegrityError(
                f"epoch {part.epoch}: an image whose role is not train was about to be trained on"
            )
        self.places = _cut(len(rows), job.train.batch, whole)
        drawn = draw_parameters(part.before + len(rows), seed=job.seed, epoch=part.epoch)
        self.parameters = drawn[part.before :]
        counts = job.counts
        if job.train.prior == "effective":
            counts = np.bincount(table.label[rows], minlength=len(job.counts))
        # a class without images keeps a finite logarithm
        self.counts = torch.tensor(counts, dtype=torch.float32).clamp(min=1)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def images(self) -> int:
        """Images of all batches, over all workers."""
        return sum(map(len, self.places))

    def share(self, number: int) -> Batch | None:
        """This worker's share of a global batch; None if the batch is too small for one."""
        places = self.places[number]
        own = places[self.world.rank :: self.world.size]
        if not len(own):
            return None
        config = self.job.train.augment
        if config.mix == "none":
            return self._batch(own, len(places))
        before = self.part.before
        mix = draw_mix(
            places + before,
            seed=self.job.seed,
            epoch=self.part.epoch,
            kind=config.mix,
            alpha=config.mix_alpha,
            side=self.job.train.image_size,
        )
        partners = mix.partner[own - places[0]] - before
        return self._batch(own, len(places), self._batch(partners, len(places)), mix)

    def _batch(
        self, places: Places, size: int, partner: Batch | None = None, mix: Mix | None = None
    ) -> Batch:
        """The images at some places of a global batch of `size`."""
        rows = self.part.order.rows[places]
        labels = self.table.label[rows]
        return Batch(
            images=self.table.images[rows],
            labels=labels,
            parameters=self.parameters[places],
            strength=self.strength[labels],
            partner=partner,
            mix=mix,
            counts=self.counts,
            size=size,
        )

    def not_finite(self, number: int, loss: float) -> DisclError:
        """The error of a batch whose loss is not finite; names step, stage and images."""
        part = self.part
        train = self.job.train
        rows = part.order.rows[self.places[number]][:NAMED]
        named = ", ".join(self._name(row) for row in rows)
        return DisclError(
            f"epoch {part.epoch}, step {number + 1} of {len(self)}, "
            f"stage λ {pct_to_lam(part.choice.lam_pct):g}: the loss is {loss}; "
            f"lower train.learning_rate = {train.learning_rate} "
            "(of a start: train.start_learning_rate). "
            f"The batch held {named}, …; the last checkpoint is intact"
        )

    def _name(self, row: int) -> str:
        """An image and its level, as messages name it."""
        lam = pct_to_lam(int(self.table.lam_pct[row]))
        return f"{self.table.sample_id[row]} (λ {lam:g})"


def _cut(count: int, size: int, whole: bool) -> list[Places]:
    """Places of each global batch; of `whole` batches only, the rest is left out."""
    end = count - count % size if whole else count
    if not end:
        raise DisclError(
            f"train.batch = {size} is more than the {count} images of an epoch; lower it"
        )
    return [np.arange(begin, min(begin + size, end)) for begin in range(0, end, size)]
