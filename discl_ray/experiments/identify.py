# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""Hardness by confidence: SAMPLES -> Ray Data -> PREDICTIONS, in a folder named by all that decides them.

    <run>/predictions-<hash8>/predictions.parquet    PREDICTIONS of train and val; nobody looks at test
    <run>/predictions-<hash8>/MANIFEST.json          written last

The zero-shot way is one pass of the scorer. The out-of-fold way decodes once, trains a classifier a fold, and has each judge what
it did not see.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.cluster.heartbeat import Heartbeat, observe
from discl_ray.cluster.inventory import present
from discl_ray.cluster.map_blocks import share
from discl_ray.cluster.placement import placed
from discl_ray.cluster.session import ray_session, start_beside_driver
from discl_ray.cluster.watchdog import Snapshot, Watchdog
from discl_ray.config import Config
from discl_ray.core.run_directory import MANIFEST, locked
from discl_ray.core.schema import PREDICTIONS
from discl_ray.core.storage import Store
from discl_ray.data import Samples
from discl_ray.evaluate.out_of_fold import (
    Decode,
    FoldActor,
    Weights,
    assign_folds,
    fold_job,
    train_folds,
)
from discl_ray.plan.hardness import PREDICTIONS_FILE, read_predictions
from discl_ray.plan.prompts import Prompts
from discl_ray.process.progress import Progress
from discl_ray.score.model_folder import check_scorer, scorer_fingerprint
from discl_ray.synthesize.checks import judging_crew
from discl_ray.synthesize.layout import predictions_store
from discl_ray.train.workers import each_alone

if TYPE_CHECKING:
    from ray.data import Dataset

SEEN = ("train", "val")
"""Splits that are predicted on."""

ROWS = 256
"""Images of a block on its way to the actors."""


def identify(config: Config, samples: Samples, prompts: Prompts) -> pa.Table:
    """PREDICTIONS of all train and val images by `hard.method`; what was predicted before is only read.

    Raises ModelError, ConfigError or DataError if the method cannot be used, DisclError if a training diverged.
    """
    store = predictions_store(config, samples, prompts)
    with locked(store):
        if not (store.sound(MANIFEST) and store.sound(PREDICTIONS_FILE)):  # or it was damaged since
            found = METHODS[config.hard.method](config, samples, prompts)
            place = pc.index_in(_seen(samples)["sample_id"], found["sample_id"].combine_chunks())
            table = found.take(place)  # in the order of SAMPLES, whichever block was first
            store.write_table(PREDICTIONS_FILE, table)
            record = {
                "method": config.hard.method,
                "rows": table.num_rows,
                "unread": table["prob_true"].null_count,
            }
            store.write_json(MANIFEST, {**record, "samples": samples.fingerprint})
    return read_predictions(store)


def zero_shot(config: Config, samples: Samples, prompts: Prompts) -> pa.Table:
    """PREDICTIONS by the scorer."""
    from discl_ray.score.zero_shot import ZeroShotActor

    check_scorer(config.scorer)
    with ExitStack() as session:
        session.enter_context(ray_session(num_cpus=config.run.num_cpus, needs={}))
        from ray.data import ActorPoolStrategy

        hands = judging_crew(config)
        placement = session.enter_context(placed(hands))
        (part,) = hands.parts
        scorer = config.scorer.model_copy(update={"actors": part.actors, "num_gpus": part.num_gpus})
        print(f"  {hands.words('scorer')}", flush=True)
        heartbeat = start_beside_driver(Heartbeat)
        texts = [prompts.filter(name) for name in samples.classes]
        predicted = _rows(samples).map_batches(
            ZeroShotActor,
            fn_constructor_args=(scorer, texts, scorer_fingerprint(scorer)[:16], heartbeat),
            compute=ActorPoolStrategy(min_size=part.actors, max_size=part.actors),
            batch_size=ROWS,
            batch_format="pyarrow",
            **placement.resources(0),
        )

        def look(progress: Progress) -> Snapshot:
            return observe(heartbeat, progress.done, config.run.stall_warning_s)

        return _collect(predicted, _seen(samples).num_rows, config, look)


def out_of_fold(config: Config, samples: Samples, prompts: Prompts) -> pa.Table:
    """PREDICTIONS by classifiers trained on the other folds, a GPU each if there is one."""
    train = each_alone(config).train
    job = fold_job(train, seed=config.seed, classes=len(samples.classes))
    folds, count = folds_of(config, samples), config.hard.folds
    name = predictions_store(config, samples, prompts).base.rsplit("-", 1)[
        -1
    ]  # which names its classifiers, too
    with ray_session(
        num_cpus=config.run.num_cpus, needs={"CPU": max(2.0, 0 if train.on_gpu else train.threads)}
    ):
        from ray.data import ActorPoolStrategy

        where = ", each on a GPU" if train.on_gpu else ""
        print(
            f"  {len(folds)} training images in {count} folds; a classifier for each, trained on the others{where}",
            flush=True,
        )
        if unseen := unseen_classes(samples, folds):
            shown = ", ".join(unseen[:8]) + (", …" if len(unseen) > 8 else "")
            print(
                f"  {len(unseen)} classes lie in one fold, so they are judged by classifiers that never saw them: {shown}"
            )
        decode = Decode(job.train.image_size)
        decoded = _rows(samples).map_batches(decode, batch_size=ROWS, batch_format="pyarrow")
        trained: dict[int, Weights] = {}
        progress = Progress(count, "folds trained")

        def training(_: Progress) -> Snapshot:
            return Snapshot(
                token=len(trained),
                waiting_for="the images to be decoded and the folds to be trained",
                preparing=True,
            )

        with _watched(config, progress, training):
            decoded = decoded.materialize()
            blocks: list[Any] = decoded.to_arrow_refs()
            for number, weights in train_folds(job, blocks, folds, count):
                trained[number] = weights
                progress.advance(1)
        most = min(count, present(config.run).gpus) if train.on_gpu else count
        predicted = decoded.map_batches(
            FoldActor,
            fn_constructor_args=(job, [trained[number] for number in range(count)], folds, name),
            compute=ActorPoolStrategy(min_size=1, max_size=most),
            batch_size=ROWS,
            batch_format="pyarrow",
            **share(train.on_gpu),
        )

        def judging(judged: Progress) -> Snapshot:
            return Snapshot(token=judged.done, waiting_for="the classifiers to judge")

        return _collect(predicted, _seen(samples).num_rows, config, judging)


METHODS: dict[str, Callable[[Config, Samples, Prompts], pa.Table]] = {
    "zero_shot": zero_shot,
    "out_of_fold": out_of_fold,
}
"""How confidence is had: (config, samples, prompts) -> PREDICTIONS."""


def folds_of(config: Config, samples: Samples) -> dict[str, int]:
    """Training image -> fold.

    Raises DataError if there are fewer groups than folds.
    """
    train = samples.table.filter(pc.equal(samples.table["split"], "train"))
    fold = assign_folds(
        train["label"].to_numpy().astype(np.int64),
        np.array(train["group"].to_pylist(), object),
        np.array(train["sha256"].to_pylist(), object),
        folds=config.hard.folds,
        seed=config.seed,
    )
    return dict(zip(train["sample_id"].to_pylist(), fold.tolist(), strict=True))


def unseen_classes(samples: Samples, folds: Mapping[str, int]) -> list[str]:
    """Names of classes all of whose training images are held out together."""
    train = samples.table.filter(pc.equal(samples.table["split"], "train"))
    of_class: dict[int, set[int]] = {}
    for sample_id, label in zip(
        train["sample_id"].to_pylist(), train["label"].to_pylist(), strict=True
    ):
        of_class.setdefault(label, set()).add(folds[sample_id])
    return [samples.classes[label] for label, of in sorted(of_class.items()) if len(of) == 1]


def _seen(samples: Samples) -> pa.Table:
    return samples.table.filter(pc.is_in(samples.table["split"], pa.array(SEEN)))


def _rows(samples: Samples) -> Dataset:
    """SAMPLES rows of train and val with their images, as blocks of ROWS."""
    import ray
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it raises is raised
    parts = [name for split in SEEN for name in samples.store.list(split, ".parquet")]
    blocks = [pa.table({"part": [name]}) for name in parts]
    rows = ray.data.from_arrow(blocks).map_batches(
        _ReadPart(samples.store), batch_size=1, batch_format="pyarrow"
    )
    return rows.repartition(target_num_rows_per_block=ROWS)


@dataclass(frozen=True)
class _ReadPart:
    store: Store

    def __call__(self, named: pa.Table) -> pa.Table:
        return self.store.read_table(named["part"][0].as_py(), ["sample_id", "label", "image"])


Look = Callable[[Progress], Snapshot]


@contextmanager
def _watched(config: Config, progress: Progress, look: Look) -> Iterator[None]:
    try:
        with Watchdog(
            lambda: look(progress),
            warning_s=config.run.stall_warning_s,
            limit_s=config.run.stall_limit_s,
        ):
            yield
    finally:
        progress.close()


def _collect(predicted: Dataset, total: int, config: Config, look: Look) -> pa.Table:
    """Everything a Ray Data graph predicts, with a line that says how far it is."""
    progress, parts = Progress(total, "images judged"), [PREDICTIONS.empty_table()]
    with _watched(config, progress, look):
        for batch in predicted.iter_batches(batch_size=None, batch_format="pyarrow"):
            part = cast(pa.Table, batch)
            parts.append(part.cast(PREDICTIONS))
            progress.advance(part.num_rows)
    return pa.concat_tables(parts).combine_chunks()
