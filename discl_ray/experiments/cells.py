"""Rows x seeds -> one table: means, and intervals of the paired differences to a baseline.

A seed redraws the writers' roles, which digits are rare, which images a rare class keeps, initialisation and generation noise; the
rows of one seed share all of that, their start and their spectrum. Each seed is one Ray task on one GPU, or on one CPU where there is
none, running the loop that Ray Train runs, in process. Finished cells lie on disk and are not computed again, so each model sees the
test images once; one of which a file is gone or damaged is computed again. Of two comparisons at once one computes a run, and the
other waits for it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from discl_ray.config import Config, dump_config, part_hash
from discl_ray.core.ids import stable_id
from discl_ray.core.metrics import DOMAINS
from discl_ray.core.run_directory import locked, run_store
from discl_ray.core.storage import Store
from discl_ray.curriculum.controller import LocalController
from discl_ray.errors import IntegrityError
from discl_ray.evaluate.ensemble import choose_alpha, ensembled
from discl_ray.evaluate.held_out import LEDGER, PREDICTED, SCORED, evaluate_test
from discl_ray.experiments.controls import pretrain, retrieve
from discl_ray.experiments.rows import PlannedRun, RowSpec, count_epochs, plan_run, table_of
from discl_ray.experiments.statistics import Interval, Predicted, interval
from discl_ray.models.device import training_device
from discl_ray.plan.prompts import load_prompts
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.images.table import ImageTable, open_table
from discl_ray.train.job import history_rows
from discl_ray.train.learners.learner import TrainJob
from discl_ray.train.loop import LEARNERS, Report, loop

WEIGHTS = "model.safetensors"
HISTORY = "history.json"
READ = "read.json"

AGAIN = "it is computed again"

Columns = Sequence[tuple[str, str]]


class Cell(NamedTuple):
    """What one row came to in one seed."""

    predicted: dict[tuple[str, str], Predicted]
    """By (metric, group or domain)."""
    history: list[dict[str, Any]]
    """By epoch; empty if nothing was trained."""
    openings: int
    """How often the test images were opened for it, from the ledger."""
    read: dict[str, float]
    """alpha or tau, where the weights are read in another way than as trained."""
    device: str
    """What its run was trained on; empty if nothing was trained."""


# -- a seed


def compare_seed(config: Config, spectrum: Spectrum, rows: Sequence[RowSpec]) -> None:
    """Computes the cells of one seed that are missing; raises ModelError if a GPU is reserved that cannot be used."""
    torch.set_num_threads(1)
    training_device(config.train.on_gpu, config.train.precision)
    seed = _Seed(config, spectrum)
    for spec in rows:
        seed.cell(spec)


class _Seed:
    """The rows of one seed, with what they share."""

    def __init__(self, config: Config, spectrum: Spectrum) -> None:
        self.config, self.spectrum = config, spectrum
        self._tables: dict[str, ImageTable] = {}

    def cell(self, spec: RowSpec) -> None:
        planned = plan_run(spec.of(self.config), self.spectrum)
        with locked(run_of(planned, spec), wait=True):
            if not is_finished(planned, spec):
                self._compute(planned, spec)

    def _compute(self, planned: PlannedRun, spec: RowSpec) -> None:
        store = cell_store(planned, spec)
        table = self._table(planned, spec)
        start = self._start(planned, spec)
        weights = start if spec.read == "untrained" else self._trained(planned, spec, table, start)
        read: dict[str, float] = {}
        if spec.read == "ensemble":
            read["alpha"] = choose_alpha(planned.job, start, weights, table)
            weights = ensembled(start, weights, read["alpha"])
        if spec.read == "post_hoc":
            read["tau"] = 1.0
        store.write_json(READ, read)
        tau = read.get("tau", 0.0)
        evaluate_test(
            planned.job,
            weights,
            spectrum=self.spectrum,
            run=store,
            config_hash=planned.config_hash,
            post_hoc=tau,
        )

    def _table(self, planned: PlannedRun, spec: RowSpec) -> ImageTable:
        key = stable_id(planned.config.train.image_size, spec.web == "retrieved")
        if key not in self._tables:
            table = open_table(table_of(planned.config, self.spectrum))
            if spec.web == "retrieved":
                table = retrieve(
                    planned.job, table, planned.config.scorer, load_prompts(planned.config.prompts)
                )
            self._tables[key] = table
        return self._tables[key]

    def _start(self, planned: PlannedRun, spec: RowSpec) -> dict[str, Tensor]:
        """What the row begins from: made once for all rows that begin alike."""
        if not planned.config.train.start_steps:
            return fresh(planned.job)
        first = plan_run(self.config, self.spectrum, start=True)
        store = run_store(
            self.config.run.root,
            self.config.run.name,
            f"compare/{first.store.name}-{spec.web or 'start'}",
        )
        if spec.web == "retrieved":
            return self._start(planned, replace(spec, web=""))
        with locked(store, wait=True):
            weights = _left_weights(store)
            if weights is None:
                table = self._table(first, replace(spec, web=""))
                begin = pretrain(first.job) if spec.web == "pretrained" else None
                weights, _ = train_in_process(count_epochs(first, table), table, begin)
                store.write(WEIGHTS, safetensors.torch.save(weights))
        return weights

    def _trained(
        self, planned: PlannedRun, spec: RowSpec, table: ImageTable, start: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The weights of a run, which several rows may read in their own ways."""
        store = run_of(planned, spec)
        weights = _left_weights(store) if store.sound(HISTORY) else None
        if weights is None:
            weights, history = train_in_process(planned, table, start)
            store.write("config.yaml", dump_config(planned.config).encode())
            store.write(WEIGHTS, safetensors.torch.save(weights))
            store.write_json(HISTORY, history)
        return weights


def _left_weights(store: Store) -> dict[str, Tensor] | None:
    """A run's weights; None if there are none, or they cannot be read any more."""
    from discl_ray.train.run_files import load_weights

    try:
        return load_weights(store, AGAIN) if store.exists(WEIGHTS) else None
    except IntegrityError as error:
        print(f"  {error}", flush=True)
        return None


def run_of(planned: PlannedRun, spec: RowSpec) -> Store:
    """Where a training run of a table lies: apart from `make train`'s runs, under the same root."""
    name = planned.store.name + (f"-{spec.web}" if spec.web else "")
    return run_store(planned.config.run.root, planned.config.run.name, f"compare/{name}")


def cell_store(planned: PlannedRun, spec: RowSpec) -> Store:
    """Where a row's test predictions, scores and ledger lie."""
    return run_of(planned, spec).within(spec.read)


def fresh(job: TrainJob) -> dict[str, Tensor]:
    """A model's weights before any training: a CLIP's own, or a random draw."""
    return {
        k: v.detach().clone()
        for k, v in LEARNERS[job.train.model](job, torch.device("cpu")).model.state_dict().items()
    }


def train_in_process(
    planned: PlannedRun, table: ImageTable, start: dict[str, Tensor] | None
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The loop without Ray Train; the weights and what was recorded by epoch."""
    job = planned.job
    controller = LocalController(job.curriculum, job.levels, job.seed)
    weights = loop(job, table, controller, _ignore, start=start, epochs=planned.epochs)
    return weights, history_rows(controller.state()["history"])


def _ignore(_report: Report) -> None:
    """Cells are short: a killed one is computed again from its start."""


def is_finished(planned: PlannedRun, spec: RowSpec) -> bool:
    """Whether a cell has been computed and all that is asked of it can be read; says which file cannot."""
    store = cell_store(planned, spec)
    if not (store.exists(SCORED) and store.exists(LEDGER)):
        return False
    try:
        store.read_table(SCORED, remedy=AGAIN)
        _read(planned, spec)
    except IntegrityError as error:
        print(f"  {error}", flush=True)
        return False
    return True


class _Written(NamedTuple):
    """A finished cell's files."""

    label: NDArray[np.int64]
    guess: NDArray[np.int64]
    domain: NDArray[np.str_]
    history: list[dict[str, Any]]
    read: dict[str, float]


def _read(planned: PlannedRun, spec: RowSpec) -> _Written:
    """Raises IntegrityError for a file that is gone or damaged."""
    store, run = cell_store(planned, spec), run_of(planned, spec)
    with store.reading(PREDICTED, AGAIN):
        said = store.read_table(PREDICTED, remedy=AGAIN)
        label, guess = (said[name].to_numpy() for name in ("label", "pred"))
        domain = np.array(said["domain"].to_pylist())
    history = [] if spec.read == "untrained" else run.read_json(HISTORY, AGAIN)
    return _Written(label, guess, domain, history, store.read_json(READ, AGAIN))


def read_cell(config: Config, spectrum: Spectrum, spec: RowSpec, columns: Columns) -> Cell:
    """A finished cell from disk."""
    planned = plan_run(spec.of(config), spectrum)
    found = _read(planned, spec)
    group = np.array([planned.job.groups[int(c)] for c in found.label])
    whole = np.ones(len(found.label), bool)
    parts = {}
    for metric, name in columns:
        where = found.domain if name in DOMAINS else group
        part = whole if name == "overall" else where == name
        parts[metric, name] = Predicted(found.label, found.guess, part)
    device = "" if spec.read == "untrained" else _device(run_of(planned, spec))
    return Cell(
        parts, found.history, _count_openings(cell_store(planned, spec)), found.read, device
    )


def _device(run: Store) -> str:
    """What a run was trained on, by its configuration; where that is left open it is one of before GPUs were used."""
    if not run.exists("config.yaml"):
        return ""
    on_gpu = yaml.safe_load(run.read("config.yaml"))["train"]["use_gpu"] is True
    return "a GPU" if on_gpu else "the CPU"


def _count_openings(store: Store) -> int:
    """Lines of a cell's ledger; raises IntegrityError if it is damaged, as nobody knows then."""
    with store.reading(LEDGER):
        return len([json.loads(line) for line in store.read(LEDGER).decode().splitlines()])


# -- the table

Cells = Mapping[int, Mapping[str, Cell]]
"""Seed -> row's label -> cell."""


def difference(cells: Cells, label: str, base: str | None, column: tuple[str, str]) -> Interval:
    """A row's mean, or its paired difference to another row, with the interval."""
    runs = [cells[seed][label].predicted[column] for seed in sorted(cells)]
    bases = (
        None if base is None else [cells[seed][base].predicted[column] for seed in sorted(cells)]
    )
    return interval(runs, column[0], bases)


def openings(cells: Cells) -> Counter[int]:
    """How many cells opened the test images how often."""
    return Counter(cell.openings for rows in cells.values() for cell in rows.values())


def compare_hash(config: Config, table: str) -> str:
    """Names a comparison by everything that decides it but the seed."""
    parts = ("data", "hard", "plan", "generator", "filter", "curriculum", "train")
    return part_hash(config.model_copy(update={"seed": 0}), parts, table)[:8]
