"""A row of a table: a configuration that differs in a few values, and how its weights are read.

Within a seed every row starts from the same weights (plain cross-entropy on the real images; a
CLIP from its own) and takes the same number of optimizer steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from discl_ray.cluster.demand import Workers
from discl_ray.config import PHASE_2, PLUMBING, Config, part_hash, with_values
from discl_ray.core.run_directory import run_store
from discl_ray.core.storage import Store
from discl_ray.curriculum.config import BUILTIN as STRATEGIES
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.epoch_order import Pools, epoch_images
from discl_ray.data.notes import notes_on
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.images.table import ImageTable, TableRef, build_table
from discl_ray.train.job import START, make_job, start_epochs
from discl_ray.train.learners.learner import TrainJob

SHARED = "shared start"
"""What the run is called that every row goes on from."""

SHARED_WORDS = (
    f"{SHARED}: cross-entropy on the real images alone; every row goes on from its weights"
)


def caveat(spectrum: Spectrum) -> str:
    """What a table says of its data before any figure; empty if nothing is recorded of it."""
    made = spectrum.recorded
    if made is None:
        return ""
    if made.plumbing_test:
        return PLUMBING
    return notes_on(made.data.name).caveat


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """One line of a table."""

    label: str
    values: tuple[tuple[str, Any], ...] = ()
    """Dotted keys and values, laid over the table's configuration."""
    read: Literal["trained", "post_hoc", "ensemble", "untrained"] = "trained"
    """Weights as trained; with logits adjusted by the prior afterwards; averaged with those of the
    start; or the start itself."""
    web: Literal["", "retrieved", "pretrained"] = ""
    """Embedded tasks: images of the generator's training set in place of synthetic ones, or learnt
    from before everything else."""

    def __post_init__(self) -> None:
        """Raises ValueError for an adjustment afterwards of anything but training on real images.

        Its prior is the data set's, which only matches what was trained on if every real image is
        drawn equally often.
        """
        if self.read == "post_hoc" and dict(self.values).get("curriculum.strategy") != "real_only":
            raise ValueError(
                f"{self.label}: logits are adjusted afterwards where curriculum.strategy is "
                "real_only"
            )

    def of(self, config: Config) -> Config:
        """The configuration of this row; raises pydantic's ValidationError for invalid values."""
        return with_values(config, dict(self.values))


def row(label: str, strategy: str, loss: str = "ce", /, **more: Any) -> RowSpec:
    """A strategy with a loss.

    `more` are fields of RowSpec, and further keys with a double underscore for each dot.
    """
    own = {name: more.pop(name) for name in ("read", "web") if name in more}
    values: dict[str, Any] = {"curriculum.strategy": strategy, "train.loss": loss}
    for key, value in more.items():
        values[key.replace("__", ".")] = value
    return RowSpec(label=label, values=tuple(values.items()), **own)


CE = row("CE", "real_only")


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training run that is about to be started or resumed."""

    job: TrainJob
    store: Store
    config: Config
    config_hash: str
    epochs: int
    workers: tuple[Workers, ...] = ()
    """What it was trained by, start by start; the last is the one in `job` and `config`."""


PRIORS = {
    "effective": "effective (what the stage trains on)",
    "original": "original (the data set's class frequencies)",
}


def strategy_name(curriculum: CurriculumConfig) -> str:
    """A strategy's name in tables: Adaptive is Algorithm 2; the margin rule has its own.

    One from outside is called as the configuration writes it.
    """
    if curriculum.strategy not in STRATEGIES:
        return curriculum.strategy
    words = curriculum.strategy.split("_")
    capitalized = [word if word == "to" else word.capitalize() for word in words]
    name = "-".join(capitalized)
    by_margin = curriculum.strategy == "adaptive" and curriculum.rule == "margin"
    return f"{name} (margin)" if by_margin else name


def heading(config: Config) -> str:
    """What decides a table besides its rows: the prior, and the rule of an adaptive curriculum."""
    parts: list[str] = []
    if config.train.model != "clip":
        parts.append(f"prior: {PRIORS[config.train.prior]}")
    if config.curriculum.strategy == "adaptive":
        where = "part of the epoch"
        if config.curriculum.explore_extra:
            where = "on top of the epoch, and other rows' epochs are as much longer"
        parts.append(f"rule: {config.curriculum.rule}, steps on D {where}")
    return "; ".join(parts)


def changed(config: Config) -> tuple[str, ...]:
    """What of a configuration has changed its meaning since its hash was introduced.

    It enters the hash, so that such runs get another name than old ones.
    """
    curriculum, train = config.curriculum, config.train
    parts = {
        "a CLIP's crops": train.model == "clip" and train.augment.crop < 1,
        "epochs as long as those of adaptive": curriculum.explore_extra
        and curriculum.strategy != "adaptive",
    }
    return tuple(name for name, is_so in parts.items() if is_so)


def plan_run(config: Config, spectrum: Spectrum, *, start: bool = False) -> PlannedRun:
    """The run of a configuration; `start` is the CE run that the others begin from.

    The epochs of a start run follow from its table: see `count_epochs`.

    Raises ConfigError, or ModelError if the CLIP to be trained is missing or incomplete.
    """
    if config.train.model == "clip":
        from discl_ray.train.learners.flyp import check_student  # a ResNet needs no open_clip

        check_student(config.train.clip)
    if start:
        config = config.model_copy(update={"curriculum": START, "train": config.train.start()})
    # a start run sees real images alone, so neither filter nor curriculum decides it
    parts = ("seed", "train") if start else PHASE_2
    kind = ("start",) if start else ("row", *changed(config))
    hash_ = part_hash(config, parts, spectrum.name, *kind)
    job = make_job(
        spectrum,
        seed=config.seed,
        data=config.data,
        train=config.train,
        curriculum=config.curriculum,
    )
    folder = f"train-{hash_[:8]}-s{config.seed}"
    store = run_store(config.run.root, config.run.name, folder)
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
    """A start run with the epochs that its number of steps takes."""
    pools = Pools.of(
        label=table.label,
        lam_pct=table.lam_pct,
        role=table.role,
        hard=table.hard,
        num_classes=len(planned.job.counts),
    )
    images = epoch_images(pools, planned.job.curriculum)
    return replace(planned, epochs=start_epochs(planned.job, images))
