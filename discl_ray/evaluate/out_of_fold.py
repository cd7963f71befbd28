"""Out-of-fold predictions: each training image is judged by a classifier that saw neither it, nor its group, nor a copy of it.

A classifier's confidence in its own training images says nothing. Folds are trained as Ray tasks, by the loop that everything is
trained by; Ray Data decodes each image once and carries it to the models. Val images were trained on by none: they get the mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from discl_ray.cluster.map_blocks import as_tasks
from discl_ray.core.lam import REAL
from discl_ray.core.predictions import predictions_of
from discl_ray.curriculum.controller import LocalController
from discl_ray.errors import ConfigError, DataError
from discl_ray.models.device import training_device
from discl_ray.train.config import TrainConfig
from discl_ray.train.images.segments import load_pixels
from discl_ray.train.images.table import ImageTable
from discl_ray.train.job import START, start_epochs
from discl_ray.train.learners.learner import TrainJob
from discl_ray.train.loop import Report, loop, predictor_of

if TYPE_CHECKING:
    from ray import ObjectRef

NO_FOLD = -1
"""The fold of val images."""

BUNDLES = 8
"""Into how many times as many bundles as folds the rows that are tied to none are dealt."""

Weights = Mapping[str, Tensor]
Folds = Mapping[str, int]
"""Training image -> the fold it is held out in."""
Strings = NDArray[np.object_]


# -- folds


def assign_folds(
    label: NDArray[np.int64], group: Strings, sha256: Strings, *, folds: int, seed: int
) -> NDArray[np.int64]:
    """The fold 0…folds-1 of every row: equal groups (null is none) and equal bytes in one fold, classes as even as that lets them.

    Raises DataError if there are fewer inseparable parts than folds.
    """
    part = _inseparable(group, sha256)
    if (parts := int(part.max(initial=-1)) + 1) < folds:
        raise DataError(
            f"hard.folds = {folds}: the training images are {parts} parts that may not be divided (by group, or as copies); "
            "lower hard.folds, or take hard.method=zero_shot"
        )
    rng = np.random.default_rng([seed, 0xF0])
    # A million parts of one row are too many to weigh one by one: dealt out class by class, they make bundles that are alike.
    single = rng.permutation(np.flatnonzero(np.bincount(part)[part] == 1))
    part[single[np.argsort(label[single], kind="stable")]] = parts + np.arange(len(single)) % (
        BUNDLES * folds
    )
    if np.bincount(label).max() < folds:  # too few of every class to be evened out
        _, part = np.unique(part, return_inverse=True)
        return rng.permutation(part.max() + 1)[part] % folds
    fold = np.empty(len(label), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer rows than folds
        split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32).split(
            label, label, part
        )
        for number, (_, held_out) in enumerate(split):
            fold[held_out] = number
    return fold


def _inseparable(group: Strings, sha256: Strings) -> NDArray[np.int64]:
    """Numbers the connected components of rows that share a group or bytes, shape (N,)."""
    rows = np.arange(len(sha256))
    grouped = np.flatnonzero([g is not None for g in group])
    _, of_bytes = np.unique(sha256.astype(str), return_inverse=True)
    _, of_group = np.unique(group[grouped].astype(str), return_inverse=True)
    # a graph of rows, then groups, then bytes; each row is tied to its own
    ends = np.concatenate([len(rows) + of_group, len(rows) + len(grouped) + of_bytes])
    starts = np.concatenate([grouped, rows])
    size = 2 * len(rows) + len(grouped)
    _, part = connected_components(
        coo_array((np.ones(len(ends), bool), (starts, ends)), shape=(size, size)), directed=False
    )
    _, part = np.unique(part[: len(rows)], return_inverse=True)
    return part.astype(np.int64)


# -- the classifiers of the folds


def fold_job(train: TrainConfig, *, seed: int, classes: int) -> TrainJob:
    """Plain cross-entropy on real images, as the start of every training run.

    Raises ConfigError if that would be no training at all.
    """
    if not train.start_steps:
        raise ConfigError(
            "train.start_steps = 0: the classifiers of hard.method = out_of_fold would learn nothing; raise it"
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
    """SAMPLES rows become `sample_id`, `label` and `raw`: pixels at the classifier's size, null if they cannot be read."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, rows: pa.Table) -> pa.Table:
        """As many rows as came."""
        raw = [self._raw(image) for image in rows["image"].to_pylist()]
        return rows.select(["sample_id", "label"]).append_column("raw", pa.array(raw, pa.binary()))

    def _raw(self, image: Mapping[str, Any]) -> bytes | None:
        try:
            return load_pixels(image, self.side).tobytes()
        except DataError:
            return None


def _stack(raw: pa.ChunkedArray, side: int) -> NDArray[np.uint8]:
    """Pixels of rows that have them, shape (N, side, side, 3), read-only."""
    return np.frombuffer(b"".join(raw.to_pylist()), np.uint8).reshape(-1, side, side, 3)


def train_fold(job: TrainJob, decoded: pa.Table) -> dict[str, Tensor]:
    """The weights of one fold's classifier, from the decoded images of the others; their order does not matter.

    Raises DisclError if the loss is not finite.
    """
    rows = decoded.filter(decoded["raw"].is_valid()).sort_by("sample_id")
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
    return loop(job, table, controller, _ignore, epochs=start_epochs(job, count))


def _ignore(_report: Report) -> None:
    """Nothing is kept of a fold but its last weights."""


class FoldActor:
    """Decoded rows in, PREDICTIONS out: each by its fold's classifier, rows of no fold by the mean over all."""

    def __init__(
        self, job: TrainJob, weights: Sequence[Weights], folds: Folds, scorer: str
    ) -> None:
        torch.set_num_threads(1)
        self.job, self.folds, self.scorer = job, folds, scorer
        self.models = [predictor_of(job, one) for one in weights]

    def __call__(self, rows: pa.Table) -> pa.Table:
        """PREDICTIONS of the rows, in their order; nulls for images that cannot be read any more."""
        fold = fold_of(rows, self.folds)
        read = rows["raw"].is_valid().to_numpy(zero_copy_only=False)
        probabilities = np.zeros((rows.num_rows, len(self.job.counts)), np.float32)
        for number, model in enumerate(self.models):
            for mine, weight in ((fold == number, 1.0), (fold == NO_FOLD, 1 / len(self.models))):
                if (mine & read).any():
                    images = _stack(
                        rows["raw"].filter(pa.array(mine & read)), self.job.train.image_size
                    )
                    probabilities[mine & read] += weight * model(images).numpy()
        return predictions_of(
            rows, probabilities.clip(max=1), read, fold=fold.astype(np.int32), scorer=self.scorer
        )


def fold_of(rows: pa.Table, folds: Folds) -> NDArray[np.int64]:
    """The fold of each row, shape (N,); NO_FOLD for those that are in none."""
    return np.array(
        [folds.get(sample_id, NO_FOLD) for sample_id in rows["sample_id"].to_pylist()], np.int64
    )


# -- the Ray edge


def train_folds(
    job: TrainJob, blocks: Sequence[ObjectRef[pa.Table]], folds: Folds, count: int
) -> Iterator[tuple[int, Weights]]:
    """(fold, weights) in the order in which they are done; a Ray task each, which leaves out the images of its fold.

    Raises DisclError if a fold's loss is not finite, ModelError if the job has reserved GPUs that cannot be used.
    """
    import ray

    shared = ray.put(folds)
    arguments = [(job, blocks, shared, number) for number in range(count)]
    yield from as_tasks(_train_without, arguments, gpu=job.train.on_gpu, cpus=job.train.threads)


def _train_without(
    job: TrainJob, blocks: Sequence[ObjectRef[pa.Table]], folds: Folds, number: int
) -> Weights:
    import ray

    training_device(job.train.on_gpu, job.train.precision)  # before anything is fetched
    torch.set_num_threads(job.train.threads)
    parts = []
    for block in blocks:  # one at a time: only what is kept is copied
        rows = ray.get(block)
        fold = fold_of(rows, folds)
        parts.append(rows.filter(pa.array((fold != number) & (fold != NO_FOLD))))
    return train_fold(job, pa.concat_tables(parts))
