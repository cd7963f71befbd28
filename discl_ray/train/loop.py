"""The epoch loop: plain torch, no Ray. A controller chooses, a sampler orders, a report carries results and checkpoints out.

Every random number is a function of (seed, epoch, place): resumed equals never stopped, bit for bit, at one world size on CPU.
The gradient is that of the mean over the global batch, summed over workers, so their number does not change what a step means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from discl_ray.core.lam import REAL, pct_to_lam
from discl_ray.core.metrics import main_metric, scores
from discl_ray.curriculum.controller import Controller
from discl_ray.curriculum.epoch_order import (
    EpochOrder,
    Pools,
    budget,
    epoch_order,
    explore_order,
    explored_images,
)
from discl_ray.curriculum.progress import Progress, progress_of, to_metrics, unpaired
from discl_ray.curriculum.strategies import Choice
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.models.device import training_device
from discl_ray.train.augment.augment import augment, draw_parameters
from discl_ray.train.augment.class_strength import advance, probe, probe_parameters
from discl_ray.train.augment.mixup import draw_mix
from discl_ray.train.images.table import ImageTable
from discl_ray.train.learners.classifier import Classifier
from discl_ray.train.learners.learner import (
    ALONE,
    Batch,
    Learner,
    Predictor,
    TrainJob,
    World,
    parameter_groups,
)


def _flyp(job: TrainJob, device: torch.device) -> Learner:
    from discl_ray.train.learners.flyp import Flyp  # a ResNet need not wait for open_clip

    return Flyp(job, device)


LEARNERS: dict[str, Callable[[TrainJob, torch.device], Learner]] = {
    "resnet10": Classifier,
    "resnet34": Classifier,
    "clip": _flyp,
}
"""What learns, by the name of its model."""

NAMED = 8
"""Images that a diagnosis names."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the loop hands out after an epoch it was asked to report."""

    epoch: int
    metrics: dict[str, float]
    """The numbers of the epoch's record."""
    state: dict[str, Any]
    """Tensors and JSON values from which the run can go on: model, best, optimizer, position, curriculum. Live, not copied."""


def loop(
    job: TrainJob,
    table: ImageTable,
    controller: Controller,
    report: Callable[[Report], None],
    *,
    start: Mapping[str, Tensor] | None = None,
    resume: Mapping[str, Any] | None = None,
    world: World = ALONE,
    epochs: int | None = None,
    device: str | torch.device | None = None,
) -> dict[str, Tensor]:
    """Trains and returns the weights that `train.keep` asks for. `start` are weights to begin from, `resume` a reported state.

    `epochs` overrides the configured number (the start run has its own), `device` what the job's process is to have.
    Raises DisclError on a loss that is not finite, naming step, λ and images, if memory runs out, and if an epoch has no room for
    what is asked; ModelError if the job has reserved a GPU that cannot be used.
    """
    run = _Run(job, table, controller, world, _device(job, device), epochs or job.train.epochs)
    return run.go(report, start, resume)


def predictor_of(
    job: TrainJob, weights: Mapping[str, Tensor], device: str | torch.device | None = None
) -> Predictor:
    """Trained weights as something that predicts; `device` as for `loop`."""
    learner = LEARNERS[job.train.model](job, _device(job, device))
    learner.model.load_state_dict(dict(weights))
    return learner.predictor()


def _device(job: TrainJob, device: str | torch.device | None) -> torch.device:
    """What is named, else what the job's process has reserved."""
    return torch.device(
        training_device(job.train.on_gpu, job.train.precision) if device is None else device
    )


class _Run:
    """A training run underway."""

    def __init__(
        self,
        job: TrainJob,
        table: ImageTable,
        controller: Controller,
        world: World,
        device: torch.device,
        epochs: int,
    ) -> None:
        self.job, self.table, self.controller, self.world, self.epochs = (
            job,
            table,
            controller,
            world,
            epochs,
        )
        self.learner = LEARNERS[job.train.model](job, device)
        self.pools = Pools.of(
            label=table.label,
            lam_pct=table.lam_pct,
            role=table.role,
            hard=table.hard,
            num_classes=len(job.counts),
        )
        self.val = np.flatnonzero(table.role == "val")
        self.probes = np.flatnonzero((table.role == "probe") | ((table.role == "val") & table.hard))
        self.probes = self.probes[np.isin(table.lam_pct[self.probes], job.levels)]
        self.strength = np.zeros(len(job.counts), np.int64)
        self.optimizer = _optimizer(self.learner.model, job)
        self.best: dict[str, Any] | None = None
        self.device = device

    def go(
        self,
        report: Callable[[Report], None],
        start: Mapping[str, Tensor] | None,
        resume: Mapping[str, Any] | None,
    ) -> dict[str, Tensor]:
        model, first = self.learner.model, 1
        if start is not None:
            model.load_state_dict(dict(start))
        if resume is not None:
            model.load_state_dict(resume["model"])
            self.optimizer.load_state_dict(resume["optimizer"])
            self.best, self.strength = resume["best"], np.array(resume["strength"], np.int64)
            first = resume["epoch"] + 1
            if self.world.rank == 0:
                self.controller.load(resume["curriculum"])
                _tell_of_unpaired(resume["curriculum"]["history"])
        for epoch in range(first, self.epochs + 1):
            record = self._epoch(epoch)
            reporting = epoch == self.epochs or epoch % self.job.train.eval_every == 0
            if reporting:
                record |= self._evaluate(epoch)
            if self.world.rank == 0:
                self.controller.record(epoch, record)
            if reporting:
                report(Report(epoch=epoch, metrics=numbers(record), state=self._state(epoch)))
        kept = self.best["model"] if self.best is not None else model.state_dict()
        return {name: value.detach().cpu().contiguous() for name, value in kept.items()}

    def _state(self, epoch: int) -> dict[str, Any]:
        return {
            "model": self.learner.model.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "epoch": epoch,
            "strength": self.strength.tolist(),
            "curriculum": self.controller.state() if self.world.rank == 0 else {},
        }

    def _epoch(self, epoch: int) -> dict[str, Any]:
        job, config = self.job, self.job.curriculum
        if job.train.augment.kind == "cuda":
            self._probe_strengths(epoch)
        choice, progress, before = self._ask(epoch, None), {}, 0
        total = budget(self.pools, config, job.train.batch, epoch)
        if choice.explore:
            before, progress = self._explore(epoch, total)
            choice = self._ask(epoch, progress)
        order = epoch_order(
            self.pools, choice, config, seed=job.seed, epoch=epoch, images=total - before
        )
        loss = self._pass(order, epoch, choice, before=before, total=total)
        return {
            "loss": loss,
            "lam": pct_to_lam(choice.lam_pct),
            "lam_pct": choice.lam_pct,
            "synthetic": order.synthetic,
            "hard": order.hard,
            "borrowed": order.borrowed,
            "borrowed_real": order.real,
            "share": order.share,
            "images": total,
            **(
                {}
                if choice.lead is None or not math.isfinite(choice.lead)
                else {"lead_in_se": choice.lead}
            ),
            **to_metrics(progress),
        }

    def _ask(self, epoch: int, progress: Mapping[int, Progress] | None) -> Choice:
        """Rank 0's answer, on every rank."""
        choice = _agree(
            self.controller.choose(epoch, progress) if self.world.rank == 0 else None, self.world
        )
        if choice is None:
            raise IntegrityError(
                f"the curriculum has no choice for epoch {epoch}: an earlier epoch is not recorded"
            )
        return choice

    # -- Algorithm 2

    def _explore(self, epoch: int, total: int) -> tuple[int, dict[int, Progress]]:
        """|D| of a round on D ⊂ D_all, the first of the epoch's `total` images, and the progress it made at each level."""
        config, batch = self.job.curriculum, self.job.train.batch
        images = explored_images(self.pools, config, batch)
        if not config.explore_extra and images + batch > total:
            raise DisclError(
                f"an epoch has {total} images, too few for a round of exploration and a stage; lower train.batch"
            )
        order = explore_order(self.pools, images, seed=self.job.seed, epoch=epoch)
        before = self._true_class(self.probes)
        self._pass(order, epoch, Choice(levels=()), before=0, total=total)
        after = self._true_class(self.probes)
        return images, progress_of(
            before, after, self.table.lam_pct[self.probes], self.table.sample_id[self.probes]
        )

    def _true_class(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._probabilities(rows)[np.arange(len(rows)), self.table.label[rows]]

    # -- CUDA

    def _probe_strengths(self, epoch: int) -> None:
        """Moves every class's augmentation strength by what the model recognises of its training images."""
        job, table = self.job, self.table
        real = np.concatenate([self.pools.nonhard, self.pools.hard])
        by_class = {c: real[table.label[real] == c] for c in range(len(job.counts))}
        rows, level, label = probe(
            self.strength, by_class, job.train.augment, seed=job.seed, epoch=epoch
        )
        parameters = probe_parameters(len(rows), seed=job.seed, epoch=epoch)
        model, device = self.learner.model, self.device
        model.eval()
        right = np.zeros(len(rows), bool)
        with torch.no_grad():
            for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 256)):
                x = augment(
                    table.images[rows[part]], parameters[part], level[part], job.train.augment
                )
                right[part] = model(x.to(device)).argmax(1).cpu().numpy() == label[part]
        self.strength = advance(self.strength, label, level, right, job.train.augment)

    # -- one pass

    def _batches(self, count: int) -> list[NDArray[np.int64]]:
        """Places of each global batch; for a learner of whole batches without what is left over."""
        size = self.job.train.batch
        end = count - count % size if self.learner.whole_batches else count
        if not end:
            raise DisclError(
                f"train.batch = {size} is more than the {count} images of an epoch; lower it"
            )
        return [np.arange(begin, min(begin + size, end)) for begin in range(0, end, size)]

    def _pass(
        self, order: EpochOrder, epoch: int, choice: Choice, *, before: int, total: int
    ) -> float:
        """Trains on the rows of an order, places `before`... of the epoch's `total`; the mean loss over all workers."""
        table, job, model = self.table, self.job, self.learner.model
        if (table.role[order.rows] != "train").any():
            raise IntegrityError(
                f"epoch {epoch}: an image whose role is not train was about to be trained on"
            )
        effective = np.bincount(table.label[order.rows], minlength=len(job.counts))
        counts = torch.tensor(
            effective if job.train.prior == "effective" else job.counts, dtype=torch.float32
        ).clamp(min=1)
        parameters = draw_parameters(before + len(order.rows), seed=job.seed, epoch=epoch)[before:]
        batches = self._batches(len(order.rows))
        losses = torch.zeros(len(batches), device=self.device)
        model.train()
        for number, places in enumerate(batches):
            progress = (epoch - 1 + (before + int(places[0])) / total) / self.epochs
            factor = learning_rate_factor(
                progress, len(places) / (total * self.epochs), warmup=job.train.warmup
            )
            for group in self.optimizer.param_groups:
                group["lr"] = job.train.learning_rate * factor
            self.optimizer.zero_grad(set_to_none=True)
            mine = places[self.world.rank :: self.world.size]
            if len(mine):
                batch = self._batch(order, places, mine, parameters, epoch, counts, before)
                try:
                    losses[number] = self.learner.backward(batch, self.world)
                except torch.OutOfMemoryError as error:
                    raise DisclError(
                        f"epoch {epoch}: out of memory on {len(mine)} images of {job.train.image_size} pixels; raise "
                        f"train.accumulate = {job.train.accumulate} or train.workers, or lower train.batch; the last checkpoint is intact"
                    ) from error
            if self.world.size > 1:
                _sum_gradients(model)
            self.optimizer.step()
            self.learner.after_step()
        if self.world.size > 1:
            dist.all_reduce(losses)
            _average_buffers(model, self.world)
        self._check_finite(losses, order, batches, epoch, choice)
        return float(losses.sum()) / sum(map(len, batches))

    def _batch(
        self,
        order: EpochOrder,
        places: NDArray[np.int64],
        mine: NDArray[np.int64],
        parameters: NDArray[np.float64],
        epoch: int,
        counts: Tensor,
        before: int,
    ) -> Batch:
        config = self.job.train.augment

        def share(at: NDArray[np.int64], partner: Batch | None = None, mix: Any = None) -> Batch:
            rows = order.rows[at]
            labels = self.table.label[rows]
            return Batch(
                images=self.table.images[rows],
                labels=labels,
                parameters=parameters[at],
                strength=self.strength[labels],
                partner=partner,
                mix=mix,
                counts=counts,
                size=len(places),
            )

        if config.mix == "none":
            return share(mine)
        side = self.job.train.image_size
        mix = draw_mix(
            places + before,
            seed=self.job.seed,
            epoch=epoch,
            kind=config.mix,
            alpha=config.mix_alpha,
            side=side,
        )
        return share(mine, share(mix.partner[mine - places[0]] - before), mix)

    def _check_finite(
        self,
        losses: Tensor,
        order: EpochOrder,
        batches: list[NDArray[np.int64]],
        epoch: int,
        choice: Choice,
    ) -> None:
        wrong = torch.nonzero(~torch.isfinite(losses)).flatten()
        if not len(wrong):
            return
        step = int(wrong[0])
        rows = order.rows[batches[step]]
        named = ", ".join(
            f"{self.table.sample_id[r]} (λ {self.table.lam_pct[r] / REAL:g})" for r in rows[:NAMED]
        )
        raise DisclError(
            f"epoch {epoch}, step {step + 1} of {len(batches)}, stage λ {pct_to_lam(choice.lam_pct):g}: the loss is {float(losses[step])}; "
            f"lower train.learning_rate = {self.job.train.learning_rate} (of a start: train.start_learning_rate). "
            f"The batch held {named}, …; the last checkpoint is intact"
        )

    # -- evaluation

    def _probabilities(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Class probabilities of table rows, (N, C): each worker predicts a part, all get the whole."""
        found = torch.zeros(len(rows), len(self.job.counts), device=self.device)
        predict = self.learner.predictor()
        mine = np.arange(len(rows))[self.world.rank :: self.world.size]
        for part in _chunks(mine):
            found[torch.from_numpy(part)] = predict(self.table.images[rows[part]]).to(self.device)
        if self.world.size > 1:
            dist.all_reduce(found)
        return found.cpu().numpy().astype(np.float64)

    def _evaluate(self, epoch: int) -> dict[str, float]:
        """Scores on the real val images; keeps the best weights if they are to be kept."""
        if not len(self.val):
            return {}
        predicted = self._probabilities(self.val).argmax(1)
        found = scores(
            self.table.label[self.val], predicted, self.job.groups, self.table.domain[self.val]
        )
        metrics = {
            f"val_{metric}_{group}": value
            for (metric, group), (value, _) in found.items()
            if not math.isnan(value)
        }
        name = "val_{}_{}".format(*main_metric(found))
        if self.job.train.keep == "best" and (
            self.best is None or metrics[name] > self.best["value"]
        ):
            weights = {k: v.detach().clone() for k, v in self.learner.model.state_dict().items()}
            self.best = {"epoch": epoch, "value": metrics[name], "model": weights}
        return metrics


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """What of an epoch's record is a number, and not a list of them."""
    return {name: value for name, value in record.items() if isinstance(value, int | float)}


def _tell_of_unpaired(history: Mapping[str, Mapping[str, Any]]) -> None:
    if epochs := unpaired(list(history.values())):
        print(
            f"{epochs} epochs of this run were recorded without progress by source: leads in them are in standard errors that are"
            " not paired; those of the epochs to come are",
            flush=True,
        )


def learning_rate_factor(progress: float, step: float, *, warmup: float) -> float:
    """Share of the highest learning rate: linear up to 1 over the first `warmup` of a run, then a cosine towards 0.

    `progress` in [0, 1) is how much of the run is done before a step, `step` how much the step itself is.
    """
    if progress + step <= warmup:
        return (progress + step) / warmup
    return 0.5 * (1 + math.cos(math.pi * max(0.0, progress - warmup) / (1 - warmup)))


def _optimizer(model: nn.Module, job: TrainJob) -> torch.optim.Optimizer:
    train = job.train
    if train.optimizer == "adamw":
        return torch.optim.AdamW(parameter_groups(model, train), lr=train.learning_rate)
    return torch.optim.Adam(
        model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay
    )


def _chunks(places: NDArray[np.int64], size: int = 1024) -> Iterator[NDArray[np.int64]]:
    return (places[i : i + size] for i in range(0, len(places), size))


def _agree(choice: Any, world: World) -> Any:
    """Rank 0's choice, on every rank."""
    if world.size == 1:
        return choice
    box = [choice]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _sum_gradients(model: nn.Module) -> None:
    """One reduction for all gradients; a worker without images has zeros."""
    gradients = []
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _average_buffers(model: nn.Module, world: World) -> None:
    """Running statistics of batch normalisation, which each worker has of its own images."""
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= world.size
