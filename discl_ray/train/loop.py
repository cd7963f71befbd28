"""The epoch loop: plain torch, no Ray. A controller chooses, a report carries results out.

Every random number is a function of (seed, epoch, place): a resumed run equals one that was never
stopped, bit for bit, with the same number of workers on CPU. The gradient is that of the mean over
the global batch, summed over workers, so their number does not change what a step means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discl_ray.core.arrays import Bools, Floats, Ints
from discl_ray.core.metrics import main_metric, scores
from discl_ray.curriculum.controller import Controller
from discl_ray.curriculum.epoch_order import (
    Pools,
    budget,
    epoch_order,
    explore_order,
    explored_images,
    rows_by_key,
)
from discl_ray.curriculum.progress import Progress, progress_of, to_metrics
from discl_ray.curriculum.strategies import AS_IS, Choice
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.models.device import training_device
from discl_ray.train.augment.augment import augment
from discl_ray.train.augment.class_strength import Probes, advance, probe, probe_parameters
from discl_ray.train.batches import Batches, Pass
from discl_ray.train.checkpoint import Best, LoopState, Weights
from discl_ray.train.distributed import average_buffers, from_rank_0, sum_gradients, sum_over
from discl_ray.train.epoch_record import stage_record, val_record, warn_of_unpaired
from discl_ray.train.images.table import ImageTable
from discl_ray.train.job import numbers
from discl_ray.train.learners.classifier import Classifier
from discl_ray.train.learners.learner import ALONE, Learner, Predictor, TrainJob, World
from discl_ray.train.schedule import learning_rate_factor, make_optimizer, set_learning_rate

CHUNK = 1024
"""Images that are predicted at once."""

PROBED = 256
"""Fewest probes of CUDA that are predicted at once, where there are that many."""


ByLevel = dict[int, Progress]
"""Progress by level, in percent."""

MakeLearner = Callable[[TrainJob, torch.device], Learner]

Device = str | torch.device | None
"""None is the one that the job's process has reserved."""


def _flyp(job: TrainJob, device: torch.device) -> Learner:
    """A CLIP that is fine-tuned."""
    from discl_ray.train.learners.flyp import Flyp  # a ResNet need not wait for open_clip

    return Flyp(job, device)


LEARNERS: dict[str, MakeLearner] = {"resnet10": Classifier, "resnet34": Classifier, "clip": _flyp}
"""Learners by the name of the model."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the loop hands out after an epoch that ends in an evaluation."""

    epoch: int
    metrics: dict[str, float]
    """The numbers of the epoch's record."""
    state: LoopState


def loop(
    job: TrainJob,
    table: ImageTable,
    controller: Controller,
    report: Callable[[Report], None],
    *,
    start: Mapping[str, Tensor] | None = None,
    resume: LoopState | None = None,
    world: World = ALONE,
    epochs: int | None = None,
    device: Device = None,
) -> Weights:
    """Trains and returns the weights that `train.keep` asks for.

    `start` are weights to begin from, `resume` is a reported state. `epochs` overrides the
    configured number (the start run has its own), `device` the one that the job reserves.
    Raises DisclError on a loss that is not finite, naming step, λ and images, if memory runs out,
    and if an epoch is too small; ModelError if the job has reserved a GPU that cannot be used.
    """
    where = _device(job, device)
    epochs = epochs or job.train.epochs
    run = TrainingRun(job, table, controller, world, where, epochs)
    return run.train(report, start, resume)


def predictor_of(job: TrainJob, weights: Mapping[str, Tensor], device: Device = None) -> Predictor:
    """Trained weights as a predictor; `device` as for `loop`."""
    make_learner = LEARNERS[job.train.model]
    learner = make_learner(job, _device(job, device))
    learner.model.load_state_dict(dict(weights))
    return learner.predictor()


def _device(job: TrainJob, device: Device) -> torch.device:
    """The named device, else the one that the job's process has reserved."""
    if device is None:
        device = training_device(job.train.on_gpu, job.train.precision)
    return torch.device(device)


class TrainingRun:
    """A training run in progress."""

    def __init__(
        self,
        job: TrainJob,
        table: ImageTable,
        controller: Controller,
        world: World,
        device: torch.device,
        epochs: int,
    ) -> None:
        self.job = job
        self.table = table
        self.controller = controller
        self.world = world
        self.device = device
        self.epochs = epochs
        make_learner = LEARNERS[job.train.model]
        self.learner = make_learner(job, device)
        self.optimizer = make_optimizer(self.learner.model, job.train)
        self.pools = Pools.of(
            label=table.label,
            lam_pct=table.lam_pct,
            role=table.role,
            hard=table.hard,
            num_classes=len(job.counts),
        )
        self.val = np.flatnonzero(table.role == "val")
        self.probes = _probes(table, job.levels)
        self.strength = np.zeros(len(job.counts), np.int64)
        self.best: Best | None = None

    def train(
        self,
        report: Callable[[Report], None],
        start: Mapping[str, Tensor] | None,
        resume: LoopState | None,
    ) -> Weights:
        """See `loop`."""
        model = self.learner.model
        first = 1
        if start is not None:
            model.load_state_dict(dict(start))
        if resume is not None:
            self._resume(resume)
            first = resume.epoch + 1
        for epoch in range(first, self.epochs + 1):
            record = self._epoch(epoch)
            evaluated = epoch % self.job.train.eval_every == 0
            reporting = evaluated or epoch == self.epochs
            if reporting:
                record |= self.evaluate(epoch)
            if self.world.rank == 0:
                self.controller.record(epoch, record)
            if reporting:
                state = self.state(epoch)
                report(Report(epoch=epoch, metrics=numbers(record), state=state))
        return self._kept()

    def _kept(self) -> Weights:
        """The weights that `train.keep` asks for, on the CPU."""
        weights = self.learner.model.state_dict()
        if self.best is not None:
            weights = self.best.model
        return {name: value.detach().cpu().contiguous() for name, value in weights.items()}

    def _resume(self, state: LoopState) -> None:
        """Goes back to a reported state."""
        self.learner.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.best = state.best
        self.strength = np.array(state.strength, np.int64)
        if self.world.rank == 0:
            self.controller.load(state.curriculum)
            warn_of_unpaired(state.history)

    def state(self, epoch: int) -> LoopState:
        """What a run needs to go on after an epoch."""
        curriculum: dict[str, Any] = {}
        if self.world.rank == 0:
            curriculum = self.controller.state()
        return LoopState(
            epoch=epoch,
            model=self.learner.model.state_dict(),
            best=self.best,
            optimizer=self.optimizer.state_dict(),
            strength=self.strength.tolist(),
            curriculum=curriculum,
        )

    def _epoch(self, epoch: int) -> dict[str, Any]:
        """Trains for an epoch; its record."""
        job = self.job
        if job.train.augment.kind == "cuda":
            self._update_strengths(epoch)
        total = budget(self.pools, job.curriculum, job.train.batch, epoch)
        choice = self.choose(epoch, None)
        progress: ByLevel = {}
        explored = 0
        if choice.explore:
            explored, progress = self._explore(epoch, total)
            choice = self.choose(epoch, progress)
        images = total - explored
        order = epoch_order(
            self.pools, choice, job.curriculum, seed=job.seed, epoch=epoch, images=images
        )
        stage = Pass(epoch=epoch, choice=choice, order=order, before=explored, total=total)
        loss = self._train_on(stage)
        record = stage_record(stage, loss)
        return record | to_metrics(progress)

    def choose(self, epoch: int, progress: ByLevel | None) -> Choice:
        """Rank 0's choice, on every rank."""
        choice = None
        if self.world.rank == 0:
            choice = self.controller.choose(epoch, progress)
        choice = from_rank_0(choice, self.world)
        if choice is None:
            raise IntegrityError(
                f"the curriculum has no choice for epoch {epoch}: an earlier epoch is not recorded"
            )
        return choice

    def _explore(self, epoch: int, total: int) -> tuple[int, ByLevel]:
        """Algorithm 2: (|D|, progress by level) of a round of training on D ⊂ D_all.

        These are the first of the epoch's `total` images.
        """
        job = self.job
        batch = job.train.batch
        images = explored_images(self.pools, job.curriculum, batch)
        if not job.curriculum.explore_extra and images + batch > total:
            raise DisclError(
                f"an epoch has {total} images, too few for a round of exploration and a stage; "
                "lower train.batch"
            )
        order = explore_order(self.pools, images, seed=job.seed, epoch=epoch)
        part = Pass(epoch=epoch, choice=AS_IS, order=order, before=0, total=total)
        before = self.true_class(self.probes)
        self._train_on(part)
        after = self.true_class(self.probes)
        level = self.table.lam_pct[self.probes]
        source = self.table.sample_id[self.probes]
        return images, progress_of(before, after, level, source)

    def true_class(self, rows: Ints) -> Floats:
        """Probability of each row's own class, shape (N,)."""
        probabilities = self._probabilities(rows)
        every_row = np.arange(len(rows))
        own_class = self.table.label[rows]
        return probabilities[every_row, own_class]

    def _update_strengths(self, epoch: int) -> None:
        """CUDA: moves each class's strength by how many of its training images are recognised."""
        config = self.job.train.augment
        seed = self.job.seed
        real = np.concatenate([self.pools.nonhard, self.pools.hard])
        label_of_real = self.table.label[real]
        by_class = rows_by_key(real, label_of_real)
        probes = probe(self.strength, by_class, config, seed=seed, epoch=epoch)
        parameters = probe_parameters(len(probes.rows), seed=seed, epoch=epoch)
        correct = self._recognised(probes, parameters)
        self.strength = advance(self.strength, probes.label, probes.strength, correct, config)

    def _recognised(self, probes: Probes, parameters: Floats) -> Bools:
        """Whether the model predicts the class of each augmented probe, shape (M,)."""
        config = self.job.train.augment
        model = self.learner.model
        model.eval()
        count = len(probes.rows)
        places = np.arange(count)
        correct = np.zeros(count, bool)
        parts = max(1, count // PROBED)
        with torch.no_grad():
            for part in np.array_split(places, parts):
                images = self.table.images[probes.rows[part]]
                strength = probes.strength[part]
                x = augment(images, parameters[part], strength, config)
                logits = model(x.to(self.device))
                predicted = logits.argmax(1).cpu().numpy()
                correct[part] = predicted == probes.label[part]
        return correct

    def _train_on(self, part: Pass) -> float:
        """Trains on a pass; the mean loss over all workers."""
        model = self.learner.model
        batches = Batches(
            self.job,
            self.table,
            part,
            strength=self.strength,
            world=self.world,
            whole=self.learner.whole_batches,
        )
        losses = torch.zeros(len(batches), device=self.device)
        model.train()
        for number, places in enumerate(batches.places):
            first = int(places[0])
            self._schedule(part, first, len(places))
            self.optimizer.zero_grad(set_to_none=True)
            losses[number] = self._backward(batches, number)
            sum_gradients(model, self.world)
            self.optimizer.step()
            self.learner.after_step()
        sum_over(losses, self.world)
        average_buffers(model, self.world)
        broken = torch.nonzero(~torch.isfinite(losses)).flatten()
        for number in broken.tolist():
            loss = float(losses[number])
            raise batches.not_finite(number, loss)
        total = float(losses.sum())
        return total / batches.images

    def _schedule(self, part: Pass, place: int, size: int) -> None:
        """Sets the learning rate of the step on `size` images from a place of the pass on."""
        train = self.job.train
        images_done = part.before + place
        epochs_done = part.epoch - 1 + images_done / part.total
        progress = epochs_done / self.epochs
        step = size / (part.total * self.epochs)
        factor = learning_rate_factor(progress, step, warmup=train.warmup)
        set_learning_rate(self.optimizer, train.learning_rate * factor)

    def _backward(self, batches: Batches, number: int) -> Tensor | float:
        """Adds the gradients of this worker's share of a batch; the sum of its losses."""
        batch = batches.share(number)
        if batch is None:
            return 0.0
        try:
            return self.learner.backward(batch, self.world)
        except torch.OutOfMemoryError as error:
            train = self.job.train
            epoch = batches.part.epoch
            images = len(batch.labels)
            raise DisclError(
                f"epoch {epoch}: out of memory on {images} images of "
                f"{train.image_size} pixels; raise train.accumulate = {train.accumulate} or "
                "train.workers, or lower train.batch; the last checkpoint is intact"
            ) from error

    def _probabilities(self, rows: Ints) -> Floats:
        """Class probabilities of table rows, (N, C); each worker predicts a part of them."""
        count = len(rows)
        classes = len(self.job.counts)
        found = torch.zeros(count, classes, device=self.device)
        predict = self.learner.predictor()
        own = np.arange(self.world.rank, count, self.world.size)
        for begin in range(0, len(own), CHUNK):
            end = begin + CHUNK
            part = own[begin:end]
            images = self.table.images[rows[part]]
            predicted = predict(images)
            found[torch.from_numpy(part)] = predicted.to(self.device)
        sum_over(found, self.world)
        return found.cpu().numpy().astype(np.float64)

    def evaluate(self, epoch: int) -> dict[str, float]:
        """Scores on the real val images; keeps the best weights if they are to be kept."""
        if not len(self.val):
            return {}
        label = self.table.label[self.val]
        domain = self.table.domain[self.val]
        probabilities = self._probabilities(self.val)
        predicted = probabilities.argmax(1)
        found = scores(label, predicted, self.job.groups, domain)
        if self.job.train.keep == "best":
            value, _ = found[main_metric(found)]
            self._keep_if_best(epoch, value)
        return val_record(found)

    def _keep_if_best(self, epoch: int, value: float) -> None:
        """Copies the weights if they are better than those of all epochs before."""
        if self.best is not None and value <= self.best.value:
            return
        weights = self.learner.model.state_dict()
        copies = {name: tensor.detach().clone() for name, tensor in weights.items()}
        self.best = Best(epoch=epoch, value=value, model=copies)


def _probes(table: ImageTable, levels: tuple[int, ...]) -> Ints:
    """Rows that progress is measured on: synthetic probes and their real sources, by level."""
    synthetic = table.role == "probe"
    sources = (table.role == "val") & table.hard
    rows = np.flatnonzero(synthetic | sources)
    gone_through = np.isin(table.lam_pct[rows], levels)
    return rows[gone_through]
