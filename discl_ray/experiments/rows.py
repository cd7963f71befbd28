"""A row of a table is a strategy with a loss; every row starts from the same CE weights and takes the same number of steps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from discl_ray.config import PHASE_2, Config, dump_config, part_hash
from discl_ray.core.storage import Store
from discl_ray.curriculum.mixing import Pools, sizes
from discl_ray.errors import SetupError
from discl_ray.evaluate.test_split import evaluate_test
from discl_ray.run import MANIFEST, locked, run_store
from discl_ray.train.job import START, make_job, start_epochs
from discl_ray.train.loop import TrainJob
from discl_ray.train.table import ImageTable, build_table, local_copy

SENTENCE = (
    "Ten digits, 14 writers, a small generator that has seen other writers' digits. "
    "Shows the machinery and its controls; no evidence for photographs."
)
"""What every table on the embedded task says about itself."""


@dataclass(frozen=True)
class RowSpec:
    """One line of a table."""

    label: str
    strategy: str
    loss: str

    def of(self, config: Config) -> Config:
        """The configuration of this row."""
        return config.model_copy(
            update={
                "curriculum": config.curriculum.model_copy(update={"strategy": self.strategy}),
                "train": config.train.model_copy(update={"loss": self.loss}),
            }
        )


CE = RowSpec("CE", "real_only", "ce")
BS = RowSpec("Balanced Softmax", "real_only", "balanced_softmax")
ALL_LEVEL = RowSpec("CE + All-Level", "all_level", "ce")
D2S = RowSpec("CE + Diverse-to-Specific", "diverse_to_specific", "ce")
BS_D2S = RowSpec("BS + Diverse-to-Specific", "diverse_to_specific", "balanced_softmax")


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training run that is about to be made or taken up again."""

    job: TrainJob
    levels: tuple[int, ...]
    store: Store
    config_hash: str
    epochs: int


def check_generated(generated: Store) -> None:
    """Raises SetupError unless the spectrum is complete."""
    if not generated.exists(MANIFEST):
        raise SetupError(
            f"{generated.base}: no complete spectrum for this configuration; run `make generate` with the same CONF and ARGS"
        )


def plan_run(config: Config, generated: Store, *, start: bool) -> PlannedRun:
    """The run of a configuration; `start` is the CE run that the others begin from."""
    if start:
        config = RowSpec("start", START["strategy"], START["loss"]).of(config)
    hash_ = part_hash(config, PHASE_2, generated.base.rsplit("/", 1)[-1], "start" if start else "row")
    job, levels = make_job(generated, seed=config.seed, data=config.data, train=config.train, curriculum=config.curriculum)
    store = run_store(config.run.root, config.run.name, f"train-{hash_[:8]}-s{config.seed}")
    return PlannedRun(job=job, levels=levels, store=store, config_hash=hash_, epochs=0 if start else config.train.epochs)


def with_table(planned: PlannedRun, config: Config, generated: Store) -> tuple[PlannedRun, str]:
    """Builds the run's image table and, for the start run, counts its epochs; returns the table's name, too."""
    name = build_table(generated, config.filter, planned.store)
    planned.store.write("config.yaml", dump_config(config).encode())
    if planned.epochs:
        return planned, name
    table = ImageTable.open(local_copy(planned.store, name))
    pools = Pools.of(
        label=table.label,
        lam_pct=table.lam_pct,
        role=table.role,
        hard_labels=set(planned.job.hard_labels),
        num_classes=len(planned.job.counts),
    )
    n_syn, n_nonhard = sizes(pools, planned.job.curriculum)
    epochs = start_epochs(planned.job, n_syn + n_nonhard + len(pools.hard))
    return PlannedRun(
        job=planned.job, levels=planned.levels, store=planned.store, config_hash=planned.config_hash, epochs=epochs
    ), name


def train_row(
    config: Config, generated: Store, *, label: str, start: dict[str, Tensor] | None
) -> tuple[PlannedRun, dict[str, Tensor]]:
    """Trains one row under Ray Train (or the start run, if `start` is None); finished runs are not run again."""
    from discl_ray.train.trainer import train

    planned = plan_run(config, generated, start=start is None)
    with locked(planned.store):
        planned, table = with_table(planned, config, generated)
        weights = train(
            planned.job,
            run=planned.store,
            table=table,
            levels=planned.levels,
            epochs=planned.epochs,
            label=label,
            start=start,
        )
    return planned, weights


def test_row(planned: PlannedRun, weights: dict[str, Tensor], generated: Store) -> dict[str, tuple[float, int]]:
    """The row's accuracy on test."""
    return evaluate_test(planned.job, weights, generated=generated, run=planned.store, config_hash=planned.config_hash)
