"""Out-of-fold predictions: each training image is judged by a classifier that never saw it.

Nor did the classifier see its group or a copy of it: a classifier's confidence in its own training
images says nothing about how hard they are. Ray Data decodes each image once; folds are trained as
Ray tasks, by the loop that trains everything else. Val images are in no fold: they get the mean.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from discl_ray.cluster.ending import end_without_destructors
from discl_ray.cluster.inventory import present
from discl_ray.cluster.map_blocks import as_tasks, share
from discl_ray.cluster.predicting import (
    ROWS,
    collect_predictions,
    predicted_rows,
    stream_images,
    watched,
)
from discl_ray.cluster.session import ray_session
from discl_ray.cluster.watchdog import Snapshot
from discl_ray.config import Config
from discl_ray.core import columns
from discl_ray.core.lam import REAL
from discl_ray.core.predictions import predictions_of
from discl_ray.curriculum.controller import LocalController
from discl_ray.data import Samples
from discl_ray.errors import ConfigError, DataError
from discl_ray.evaluate.folds import NO_FOLD, Folds, fold_of, folds_of, unseen_labels
from discl_ray.models.device import training_device
from discl_ray.process.progress import Progress
from discl_ray.train.config import TrainConfig
from discl_ray.train.images.segments import load_pixels
from discl_ray.train.images.table import ImageTable
from discl_ray.train.job import START, start_epochs
from discl_ray.train.learners.learner import TrainJob
from discl_ray.train.loop import Report, loop, predictor_of
from discl_ray.train.workers import each_alone

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.data import Dataset

log = logging.getLogger(__name__)

CLASSES_NAMED = 8
"""Classes that a message lists."""

Weights = Mapping[str, Tensor]


def predict_out_of_fold(config: Config, samples: Samples, name: str) -> pa.Table:
    """PREDICTIONS of all train and val images, block by block; `name` is their `scorer`.

    Raises ConfigError or DataError if no classifiers can be trained, DisclError if one diverged.
    """
    settings = each_alone(config).train
    classes = samples.classes
    job = fold_job(settings, seed=config.seed, classes=len(classes))
    rows = columns.rows_where(samples.table, split="train")
    folds = folds_of(rows, folds=config.hard.folds, seed=config.seed)
    # Ray Data needs a CPU to read images and one to decode; a fold on the CPU takes all its threads
    cpus = max(2.0, 0 if settings.on_gpu else settings.threads)
    with ray_session(num_cpus=config.run.num_cpus, needs={"CPU": cpus}):
        _announce(config, rows, folds, classes, on_gpu=settings.on_gpu)
        decode = Decode(job.train.image_size)
        images = stream_images(samples.store)
        decoded = images.map_batches(cast(Any, decode), batch_size=ROWS, batch_format="pyarrow")
        decoded, weights = _train_watched(config, job, decoded, folds)
        total = predicted_rows(samples.table).num_rows
        arguments = {"job": job, "weights": weights, "folds": folds, "scorer": name}
        return _predict_all(config, decoded, arguments, on_gpu=settings.on_gpu, total=total)


def _announce(
    config: Config, train_rows: pa.Table, folds: Folds, classes: Sequence[str], *, on_gpu: bool
) -> None:
    """Logs how many classifiers are trained, and which classes one of them never sees."""
    log.info(
        "%d training images in %d folds; a classifier for each, trained on the others%s",
        len(folds),
        config.hard.folds,
        ", each on a GPU" if on_gpu else "",
    )
    unseen = [classes[label] for label in unseen_labels(train_rows, folds)]
    if unseen:
        more = ", …" if len(unseen) > CLASSES_NAMED else ""
        log.info(
            "in one fold only, and so judged by a classifier that never saw the class: %s%s",
            ", ".join(unseen[:CLASSES_NAMED]),
            more,
        )


# -- the classifiers of the folds


def fold_job(train: TrainConfig, *, seed: int, classes: int) -> TrainJob:
    """Plain cross-entropy on real images, like the start of every training run.

    Raises ConfigError if it would not train at all.
    """
    if not train.start_steps:
        raise ConfigError(
            "train.start_steps = 0: the classifiers of hard.method = out_of_fold would learn "
            "nothing; raise it"
        )
    return TrainJob(
        seed=seed,
        train=train.start(),
        curriculum=START,
        names=tuple(map(str, range(classes))),  # a classifier from scratch reads no names
        groups=dict.fromkeys(range(classes), "many"),
        counts=(1,) * classes,
    )


class Decode:
    """SAMPLES rows to `sample_id`, `label` and `raw`.

    `raw` holds the bytes of uint8 pixels, shape (side, side, 3); null for an unreadable image.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Decodes a block; keeps all rows."""
        images = rows["image"].to_pylist()
        raw = [self._raw(image) for image in images]
        kept = rows.select(["sample_id", "label"])
        column = pa.array(raw, pa.binary())
        return kept.append_column("raw", column)

    def _raw(self, image: Mapping[str, Any]) -> bytes | None:
        try:
            return load_pixels(image, self.side).tobytes()
        except DataError:
            return None


def _stack(raw: pa.ChunkedArray, side: int) -> NDArray[np.uint8]:
    """Pixels of rows without nulls, shape (N, side, side, 3), read-only."""
    data = b"".join(raw.to_pylist())
    pixels = np.frombuffer(data, np.uint8)
    return pixels.reshape(-1, side, side, 3)


def train_fold(job: TrainJob, decoded: pa.Table) -> dict[str, Tensor]:
    """The weights of one fold's classifier, from the decoded images of the other folds.

    The order of the rows does not matter. Raises DisclError if the loss is not finite.
    """
    readable = decoded["raw"].is_valid()
    rows = decoded.filter(readable).sort_by("sample_id")  # Ray Data's blocks come in any order
    count = rows.num_rows
    table = ImageTable(
        images=_stack(rows["raw"], job.train.image_size),
        label=rows["label"].to_numpy().astype(np.int64),
        lam_pct=np.full(count, REAL, np.int64),
        role=np.full(count, "train"),
        hard=np.zeros(count, bool),
        sample_id=np.asarray(rows["sample_id"].to_pylist()),
    )
    controller = LocalController(job.curriculum, job.levels, job.seed)
    epochs = start_epochs(job, count)
    return loop(job, table, controller, _ignore, epochs=epochs)


def _ignore(_report: Report) -> None:
    """Nothing is kept of a fold but its last weights."""


class FoldActor:
    """Decoded rows to PREDICTIONS: by a row's own classifier, or the mean over all for no fold."""

    def __init__(
        self, job: TrainJob, weights: Sequence[Weights], folds: Folds, scorer: str
    ) -> None:
        end_without_destructors()
        torch.set_num_threads(1)  # an actor reserves one CPU, and there is one for each fold
        self.job = job
        self.folds = folds
        self.scorer = scorer
        self.models = [predictor_of(job, one) for one in weights]

    def __call__(self, rows: pa.Table) -> pa.Table:
        """PREDICTIONS of the rows, in their order; nulls for images that could not be read."""
        fold = fold_of(rows, self.folds)
        read = rows["raw"].is_valid().to_numpy(zero_copy_only=False)
        in_no_fold = read & (fold == NO_FOLD)
        shape = (rows.num_rows, len(self.job.counts))
        probabilities = np.zeros(shape, np.float32)
        weight = 1 / len(self.models)
        for number in range(len(self.models)):
            own = read & (fold == number)
            if own.any():
                probabilities[own] = self._predict(number, rows, own)
            if in_no_fold.any():
                predicted = self._predict(number, rows, in_no_fold)
                probabilities[in_no_fold] += weight * predicted
        probabilities = probabilities.clip(max=1)  # a mean of float32 may exceed 1 by rounding
        return predictions_of(
            rows, probabilities, read, fold=fold.astype(np.int32), scorer=self.scorer
        )

    def _predict(
        self, number: int, rows: pa.Table, chosen: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Class probabilities of the chosen rows by one classifier, shape (chosen, classes)."""
        raw = rows["raw"].filter(pa.array(chosen))
        images = _stack(raw, self.job.train.image_size)
        predict = self.models[number]
        return predict(images).numpy()


# -- the Ray edge


def _train_watched(
    config: Config, job: TrainJob, decoded: Dataset, folds: Folds
) -> tuple[Dataset, list[Weights]]:
    """The images, decoded once and held in the object store, and the classifiers by fold."""
    count = config.hard.folds
    trained: dict[int, Weights] = {}
    progress = Progress(count, "folds trained")

    def snapshot(_: Progress) -> Snapshot:
        waiting_for = "the images to be decoded and the folds to be trained"
        return Snapshot(token=len(trained), waiting_for=waiting_for, preparing=True)

    with watched(progress, snapshot, config.run):
        decoded = decoded.materialize()
        blocks: list[Any] = decoded.to_arrow_refs()
        for number, weights in train_folds(job, blocks, folds, count):
            trained[number] = weights
            progress.advance(1)
    return decoded, [trained[number] for number in range(count)]


def train_without(
    job: TrainJob, blocks: Sequence[ObjectRef[pa.Table]], folds: Folds, number: int
) -> Weights:
    """Weights of a classifier trained on all images but those of one fold; a task's work.

    Raises ModelError if the job has reserved GPUs that cannot be used.
    """
    import ray

    settings = job.train
    training_device(settings.on_gpu, settings.precision)  # fails before anything is fetched
    torch.set_num_threads(settings.threads)
    parts = []
    for block in blocks:  # one at a time, so that only the rows that are kept are copied
        rows = ray.get(block)
        fold = fold_of(rows, folds)
        others = (fold != number) & (fold != NO_FOLD)
        kept = rows.filter(pa.array(others))
        parts.append(kept)
    together = pa.concat_tables(parts)
    return train_fold(job, together)


def train_folds(
    job: TrainJob,
    blocks: Sequence[ObjectRef[pa.Table]],
    folds: Folds,
    count: int,
    train_one: Callable[..., Weights] = train_without,
) -> Iterator[tuple[int, Weights]]:
    """(fold, weights) as they are done: a Ray task each, which leaves out the images of its fold.

    `train_one` is what a task does. Raises DisclError if a fold's loss is not finite, ModelError if
    the job has reserved GPUs that cannot be used.
    """
    import ray

    settings = job.train
    shared = ray.put(folds)  # once, not with each task: it names every training image
    arguments = [(job, blocks, shared, number) for number in range(count)]
    yield from as_tasks(train_one, arguments, gpu=settings.on_gpu, cpus=settings.threads)


def _predict_all(
    config: Config, decoded: Dataset, arguments: dict[str, Any], *, on_gpu: bool, total: int
) -> pa.Table:
    """PREDICTIONS of the decoded images by FoldActors with these arguments, by name."""
    from ray.data import ActorPoolStrategy

    folds = config.hard.folds
    most_actors = folds
    if on_gpu:
        most_actors = min(folds, present(config.run).gpus)
    predicted = decoded.map_batches(
        FoldActor,
        fn_constructor_kwargs=arguments,
        compute=ActorPoolStrategy(min_size=1, max_size=most_actors),
        batch_size=ROWS,
        batch_format="pyarrow",
        **share(on_gpu),
    )

    def snapshot(progress: Progress) -> Snapshot:
        return Snapshot(token=progress.done, waiting_for="the classifiers to judge")

    return collect_predictions(predicted, total, snapshot, config.run)
