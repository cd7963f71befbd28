"""A row of a table: a configuration that differs from the table's in a few values, and how its weights are read.

Within a seed every row starts from the same weights (plain cross-entropy on the real images; a CLIP from its own) and takes the
same number of optimizer steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import yaml
from torch import Tensor

from discl_ray.cluster.demand import Workers
from discl_ray.cluster.inventory import present
from discl_ray.cluster.map_blocks import as_tasks
from discl_ray.config import PHASE_2, PLUMBING, Config, dump_config, part_hash, with_values
from discl_ray.core.metrics import Scores
from discl_ray.core.run_directory import CONFIG, MANIFEST, locked, run_store
from discl_ray.core.storage import Store
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.epoch_order import Pools, epoch_images
from discl_ray.errors import IntegrityError
from discl_ray.evaluate.held_out import evaluate_test
from discl_ray.report.history import write_history_report
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.images.table import ImageTable, TableRef, build_table, open_table
from discl_ray.train.job import START, make_job, start_epochs
from discl_ray.train.learners.flyp import check_student
from discl_ray.train.learners.learner import TrainJob
from discl_ray.train.workers import training

DIGITS = (
    "Ten digits, 14 writers, a small generator that has seen other writers' digits. "
    "Shows the machinery and its controls; no evidence for photographs."
)
"""What every table on an embedded task says about itself."""


SHARED = "shared start"
"""What the run is called that every row goes on from."""

SHARED_WORDS = (
    f"{SHARED}: cross-entropy on the real images alone; every row goes on from its weights"
)

WORKERS = "workers.json"
"""By how many workers a run was trained, start by start."""


def caveat(spectrum: Spectrum) -> str:
    """What a table has to say of its task before anything else; empty if there is nothing, or nothing is known."""
    made = spectrum.recorded
    if made is None:
        return ""
    if made.plumbing_test:
        return PLUMBING
    return DIGITS if made.data.name.startswith("digits") else ""


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """One line of a table."""

    label: str
    values: tuple[tuple[str, Any], ...] = ()
    """Dotted keys and values, laid over the table's configuration."""
    read: Literal["trained", "post_hoc", "ensemble", "untrained"] = "trained"
    """Weights as trained; with logits adjusted by the prior afterwards; averaged with those of the start; or the start itself."""
    web: Literal["", "retrieved", "pretrained"] = ""
    """Embedded tasks: the generator's own images instead of its synthetic ones, or before everything else."""

    def __post_init__(self) -> None:
        """The prior of an adjustment afterwards is the data set's: what a stage shows only where every real image is drawn alike."""
        if self.read == "post_hoc" and dict(self.values).get("curriculum.strategy") != "real_only":
            raise ValueError(
                f"{self.label}: logits are adjusted afterwards where curriculum.strategy is real_only"
            )

    def of(self, config: Config) -> Config:
        """The configuration of this row; raises pydantic's ValidationError for values that cannot be."""
        return with_values(config, dict(self.values))


def row(label: str, strategy: str, loss: str = "ce", /, **more: Any) -> RowSpec:
    """A strategy with a loss; `more` are further keys, a double underscore for each dot, and fields of RowSpec."""
    own = {name: more.pop(name) for name in ("read", "web") if name in more}
    values = {"curriculum.strategy": strategy, "train.loss": loss} | {
        k.replace("__", "."): v for k, v in more.items()
    }
    return RowSpec(label=label, values=tuple(values.items()), **own)


CE = row("CE", "real_only")


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training run that is about to be made or taken up again."""

    job: TrainJob
    store: Store
    config: Config
    config_hash: str
    epochs: int
    workers: tuple[Workers, ...] = ()
    """What it was trained by, in the order of its starts; the last is the one in `job` and `config`."""


LOSSES = {"ce": "CE", "balanced_softmax": "Balanced Softmax", "logit_adjusted": "logit adjustment"}

PRIORS = {
    "effective": "effective (what the stage trains on)",
    "original": "original (the data set's class frequencies)",
}


def strategy_name(curriculum: CurriculumConfig) -> str:
    """What a strategy is called in tables: Adaptive is Algorithm 2, its argmax; another rule has a name of its own."""
    words = curriculum.strategy.split("_")
    name = "-".join(word if word == "to" else word.capitalize() for word in words)
    by_margin = curriculum.strategy == "adaptive" and curriculum.rule == "margin"
    return f"{name} (margin)" if by_margin else name


def heading(config: Config) -> str:
    """What decides a table besides its rows: the prior of adjusted losses, the rule of an adaptive curriculum."""
    said = [] if config.train.model == "clip" else [f"prior: {PRIORS[config.train.prior]}"]
    if config.curriculum.strategy == "adaptive":
        where = (
            "on top of the epoch, and other rows' epochs are as much longer"
            if config.curriculum.explore_extra
            else "part of the epoch"
        )
        said.append(f"rule: {config.curriculum.rule}, steps on D {where}")
    return "; ".join(said)


def changed(config: Config) -> tuple[str, ...]:
    """What of a configuration is made otherwise than when its hash was first given; such runs get another name."""
    curriculum, train = config.curriculum, config.train
    parts = {
        "a CLIP's crops": train.model == "clip" and train.augment.crop < 1,
        "epochs as long as those of adaptive": curriculum.explore_extra
        and curriculum.strategy != "adaptive",
    }
    return tuple(name for name, is_so in parts.items() if is_so)


def plan_run(config: Config, spectrum: Spectrum, *, start: bool = False) -> PlannedRun:
    """The run of a configuration; `start` is the CE run that the others begin from, whose epochs its table decides.

    Raises ConfigError, or ModelError if the CLIP to be trained is not there or not complete.
    """
    if config.train.model == "clip":
        check_student(config.train.clip)
    if start:  # the filter has no say in it
        config = config.model_copy(update={"curriculum": START, "train": config.train.start()})
    kind = ("start",) if start else ("row", *changed(config))
    hash_ = part_hash(config, ("seed", "train") if start else PHASE_2, spectrum.name, *kind)
    job = make_job(
        spectrum,
        seed=config.seed,
        data=config.data,
        train=config.train,
        curriculum=config.curriculum,
    )
    store = run_store(config.run.root, config.run.name, f"train-{hash_[:8]}-s{config.seed}")
    epochs = 0 if start else config.train.epochs
    return PlannedRun(job=job, store=store, config=config, config_hash=hash_, epochs=epochs)


def table_of(config: Config, spectrum: Spectrum) -> TableRef:
    """The images of a spectrum for training; built once for all runs that see the same."""
    train = config.train
    return build_table(
        spectrum,
        config.filter,
        train.image_size,
        beside=run_store(config.run.root, config.run.name, ""),
        max_decoded_gb=train.max_decoded_gb,
        num_cpus=config.run.num_cpus,
    )


def count_epochs(planned: PlannedRun, table: ImageTable) -> PlannedRun:
    """A start run with the epochs that its steps come to."""
    pools = Pools.of(
        label=table.label,
        lam_pct=table.lam_pct,
        role=table.role,
        hard=table.hard,
        num_classes=len(planned.job.counts),
    )
    return replace(
        planned, epochs=start_epochs(planned.job, epoch_images(pools, planned.job.curriculum))
    )


def divided(planned: PlannedRun, label: str) -> PlannedRun:
    """The run with its workers: what it was begun with, where that fits; else what is there, which is said and recorded.

    Raises SetupError if what is asked for does not fit.
    """
    before = read_workers(planned.store)
    last = before[-1] if before else None
    finished = planned.store.exists(MANIFEST)
    now = last if last is not None and finished else training(planned.config, last)
    if now != last:
        if last is not None:
            so_far = ", then ".join(map(str, before))
            why = _matters(planned.config, now) if now.number != last.number else ""
            print(
                f"  {label}: goes on with {now}; so far it was trained by {so_far}. {why}".rstrip(),
                flush=True,
            )
        before = (*before, now)
    planned.store.write_json(WORKERS, {"starts": [w._asdict() for w in before]})
    train = planned.config.train.model_copy(update={"workers": now.number, "use_gpu": now.gpu})
    config = planned.config.model_copy(update={"train": train})
    return replace(planned, config=config, job=replace(planned.job, train=train), workers=before)


def read_workers(run: Store) -> tuple[Workers, ...]:
    """What a run was trained by, start by start; of a run made before that was recorded, what its configuration says."""
    for name, read in ((WORKERS, _recorded), (CONFIG, _configured)):
        if not run.exists(name):
            continue
        try:
            return read(run)
        except IntegrityError as error:
            print(f"  {error}", flush=True)
    return ()


def _recorded(run: Store) -> tuple[Workers, ...]:
    """Of WORKERS."""
    remedy = f"what {CONFIG} says is taken"
    with run.reading(WORKERS, remedy):
        starts = [
            _workers(start["number"], start["gpu"])
            for start in run.read_json(WORKERS, remedy)["starts"]
        ]
        if not starts:
            raise ValueError("no start")
        return tuple(starts)


def _configured(run: Store) -> tuple[Workers, ...]:
    """Of CONFIG."""
    with run.reading(CONFIG, "it counts as begun now"):
        try:
            train = yaml.safe_load(run.read(CONFIG))["train"]
        except yaml.YAMLError as error:
            raise ValueError(error) from error
        return (_workers(train["workers"], train["use_gpu"]),)


def _workers(number: object, gpu: object) -> Workers:
    """Raises ValueError for what is no number of workers."""
    if not (isinstance(number, int) and number > 0 and isinstance(gpu, bool)):
        raise ValueError(f"{number} workers")
    return Workers(number, gpu)


def _matters(config: Config, now: Workers) -> str:
    """Where the number of workers has a say in what is learned."""
    train = config.train
    if train.model == "clip" or train.norm != "batch":
        return ""
    share = train.batch // now.number
    return f"Batch normalisation goes by the {share} images of a worker, so another number gives other figures; train.norm=group does not."


def division(planned: Sequence[PlannedRun]) -> str:
    """By how many workers the rows of a table were trained, and whether it matters, in sentences."""
    found = list(
        dict.fromkeys(", then ".join(map(str, run.workers)) for run in planned if run.workers)
    )
    several = max((w.number for run in planned for w in run.workers), default=1) > 1
    last = planned[-1]
    return (
        f"{'; '.join(found)}. {_matters(last.config, last.workers[-1]) if several else ''}".rstrip()
    )


def train_row(
    config: Config,
    spectrum: Spectrum,
    *,
    label: str,
    start: dict[str, Tensor] | None,
    is_start: bool = False,
) -> tuple[PlannedRun, dict[str, Tensor]]:
    """Trains one row under Ray Train (or the start run); finished runs are not run again."""
    from discl_ray.train.run_files import read_history
    from discl_ray.train.trainer import train

    planned = plan_run(config, spectrum, start=is_start)
    with locked(planned.store):
        planned = divided(planned, label)
        table = table_of(planned.config, spectrum)
        if is_start:
            planned = count_epochs(planned, open_table(table))
        planned.store.write(CONFIG, dump_config(planned.config).encode())
        weights = train(
            planned.job,
            run=planned.store,
            table=table,
            epochs=planned.epochs,
            label=label,
            start=start,
        )
        write_history_report(planned.store, read_history(planned.store))
    return planned, weights


def test_row(planned: PlannedRun, weights: dict[str, Tensor], spectrum: Spectrum) -> Scores:
    """The row's scores on test; by a GPU of the cluster if that is what it was trained on."""
    judge = partial(
        evaluate_test,
        planned.job,
        weights,
        spectrum=spectrum,
        run=planned.store,
        config_hash=planned.config_hash,
    )
    if not planned.config.train.on_gpu or not present(planned.config.run).gpus:
        return judge(device="cpu")
    ((_, scores),) = as_tasks(lambda: judge(), [()], gpu=True)  # Ray takes no partial function
    return scores
