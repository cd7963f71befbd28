"""Cells, rows x seeds, on disk: each is trained and evaluated once, and read for the tables.

A seed redraws what its data set leaves open, initialisation and generation noise; the rows of one
seed share all of that, their start and their spectrum. Each seed is one Ray task on one GPU, or on
one CPU, running the loop that Ray Train runs, in process. Finished cells are not computed again,
so each model sees the test images once; a cell of which a file is missing or damaged is computed
again. Of two comparisons at the same time one computes a run, and the other waits for it.
"""

from __future__ import annotations

import json
import logging
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
from discl_ray.core.run_directory import CONFIG, locked, run_store
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

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
HISTORY = "history.json"
READ = "read.json"

AGAIN = "it is computed again"

Weights = dict[str, Tensor]

History = list[dict[str, Any]]
"""What was measured, an epoch a dict."""

Column = tuple[str, str]
"""(metric, group or domain)."""

Columns = Sequence[Column]


class Cell(NamedTuple):
    """The result of one row in one seed."""

    predicted: dict[Column, Predicted]
    history: History
    """By epoch; empty if nothing was trained."""
    openings: int
    """How often the test images were opened for it, by the ledger."""
    read: dict[str, float]
    """`alpha` or `tau`, where the weights are not read as trained."""
    device: str
    """What trained it, in words; empty if nothing was trained."""


# -- a seed


def compare_seed(config: Config, spectrum: Spectrum, rows: Sequence[RowSpec]) -> None:
    """Computes the missing cells of one seed.

    Raises ModelError if a GPU is reserved that cannot be used.
    """
    torch.set_num_threads(1)
    training_device(config.train.on_gpu, config.train.precision)
    seed = _Seed(config, spectrum)
    for spec in rows:
        seed.cell(spec)


class _Seed:
    """The rows of one seed, and the tables of images they share."""

    def __init__(self, config: Config, spectrum: Spectrum) -> None:
        self.config = config
        self.spectrum = spectrum
        self._tables: dict[str, ImageTable] = {}

    def cell(self, spec: RowSpec) -> None:
        """Computes a cell if it is not finished."""
        config = spec.of(self.config)
        planned = plan_run(config, self.spectrum)
        with locked(run_of(planned, spec), wait=True):
            if not is_finished(planned, spec):
                self._compute(planned, spec)

    def _compute(self, planned: PlannedRun, spec: RowSpec) -> None:
        store = cell_store(planned, spec)
        table = self._table(planned, spec)
        start = self._start(planned, spec)
        weights = start
        if spec.read != "untrained":
            weights = self._trained(planned, spec, table, start)
        read: dict[str, float] = {}
        if spec.read == "ensemble":
            read["alpha"] = choose_alpha(planned.job, start, weights, table)
            weights = ensembled(start, weights, read["alpha"])
        if spec.read == "post_hoc":
            read["tau"] = 1.0
        store.write_json(READ, read)
        evaluate_test(
            planned.job,
            weights,
            spectrum=self.spectrum,
            run=store,
            config_hash=planned.config_hash,
            post_hoc=read.get("tau", 0.0),
        )

    def _table(self, planned: PlannedRun, spec: RowSpec) -> ImageTable:
        config = planned.config
        key = stable_id(config.train.image_size, spec.web == "retrieved")
        if key not in self._tables:
            table = open_table(table_of(config, self.spectrum))
            if spec.web == "retrieved":
                prompts = load_prompts(config.prompts)
                table = retrieve(planned.job, table, config.scorer, prompts)
            self._tables[key] = table
        return self._tables[key]

    def _start(self, planned: PlannedRun, spec: RowSpec) -> Weights:
        """The weights the row starts from, trained once for all rows that share them."""
        if not planned.config.train.start_steps:
            return fresh(planned.job)
        plain = replace(spec, web="")
        if spec.web == "retrieved":  # replaces synthetic images, which a start does not see
            return self._start(planned, plain)
        first = plan_run(self.config, self.spectrum, start=True)
        kind = spec.web or "start"
        store = _beside(self.config, f"{first.store.name}-{kind}")
        with locked(store, wait=True):
            weights = _read_weights(store)
            if weights is None:
                table = self._table(first, plain)
                begin = pretrain(first.job) if spec.web == "pretrained" else None
                counted = count_epochs(first, table)
                weights, _ = train_in_process(counted, table, begin)
                _write_weights(store, weights)
        return weights

    def _trained(
        self, planned: PlannedRun, spec: RowSpec, table: ImageTable, start: Weights
    ) -> Weights:
        """The weights of a run, which several rows may read in different ways."""
        store = run_of(planned, spec)
        weights = _read_weights(store) if store.sound(HISTORY) else None
        if weights is not None:
            return weights
        weights, history = train_in_process(planned, table, start)
        config = dump_config(planned.config)
        store.write(CONFIG, config.encode())
        _write_weights(store, weights)
        store.write_json(HISTORY, history)
        return weights


def _read_weights(store: Store) -> Weights | None:
    """A run's weights; None if there are none, or they are damaged."""
    from discl_ray.train.run_files import load_weights

    if not store.exists(WEIGHTS):
        return None
    try:
        return load_weights(store, AGAIN)
    except IntegrityError as error:
        log.info("%s", error)
        return None


def _write_weights(store: Store, weights: Weights) -> None:
    data = safetensors.torch.save(weights)
    store.write(WEIGHTS, data)


def run_of(planned: PlannedRun, spec: RowSpec) -> Store:
    """The folder of a table's training run."""
    name = planned.store.name
    if spec.web:
        name += f"-{spec.web}"
    return _beside(planned.config, name)


def _beside(config: Config, name: str) -> Store:
    """A folder of a comparison: under the root of the runs of `make train`, apart from them."""
    return run_store(config.run.root, config.run.name, f"compare/{name}")


def cell_store(planned: PlannedRun, spec: RowSpec) -> Store:
    """The folder of a row's test predictions, scores and ledger."""
    return run_of(planned, spec).within(spec.read)


def fresh(job: TrainJob) -> Weights:
    """A model's weights before any training: a CLIP's own, or random ones."""
    make = LEARNERS[job.train.model]
    learner = make(job, torch.device("cpu"))
    weights = learner.model.state_dict()
    return {name: value.detach().clone() for name, value in weights.items()}


def train_in_process(
    planned: PlannedRun, table: ImageTable, start: Weights | None
) -> tuple[Weights, History]:
    """The loop without Ray Train; the weights, and one record per epoch."""
    job = planned.job
    controller = LocalController(job.curriculum, job.levels, job.seed)
    weights = loop(job, table, controller, _ignore, start=start, epochs=planned.epochs)
    return weights, history_rows(controller.state()["history"])


def _ignore(_report: Report) -> None:
    """Saves nothing: cells are short, and a killed one is computed again from its start."""


def is_finished(planned: PlannedRun, spec: RowSpec) -> bool:
    """Whether a cell has been computed and can be read; logs which file is damaged."""
    store = cell_store(planned, spec)
    has_both = store.exists(SCORED) and store.exists(LEDGER)
    if not has_both:
        return False
    try:
        store.read_table(SCORED, remedy=AGAIN)
        _read(planned, spec)
    except IntegrityError as error:
        log.info("%s", error)
        return False
    return True


class _CellFiles(NamedTuple):
    """A finished cell's files; arrays of shape (test images,)."""

    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    domain: NDArray[np.str_]
    history: History
    read: dict[str, float]


def _read(planned: PlannedRun, spec: RowSpec) -> _CellFiles:
    """Raises IntegrityError for a file that is missing or damaged."""
    store = cell_store(planned, spec)
    with store.reading(PREDICTED, AGAIN):
        table = store.read_table(PREDICTED, remedy=AGAIN)
        label = table["label"].to_numpy()
        predicted = table["pred"].to_numpy()
        domain = np.array(table["domain"].to_pylist())
    history = []
    if spec.read != "untrained":
        history = run_of(planned, spec).read_json(HISTORY, AGAIN)
    read = store.read_json(READ, AGAIN)
    return _CellFiles(label, predicted, domain, history, read)


def read_cell(config: Config, spectrum: Spectrum, spec: RowSpec, columns: Columns) -> Cell:
    """A finished cell from disk."""
    planned = plan_run(spec.of(config), spectrum)
    found = _read(planned, spec)
    labels = found.label.tolist()
    groups = planned.job.groups
    group = np.array([groups[label] for label in labels])
    whole = np.ones(len(found.label), bool)
    predicted: dict[Column, Predicted] = {}
    for metric, name in columns:
        kinds = found.domain if name in DOMAINS else group
        part = whole if name == "overall" else kinds == name
        predicted[metric, name] = Predicted(found.label, found.predicted, part)
    device = ""
    if spec.read != "untrained":
        run = run_of(planned, spec)
        device = _device(run)
    return Cell(
        predicted=predicted,
        history=found.history,
        openings=_count_openings(cell_store(planned, spec)),
        read=found.read,
        device=device,
    )


def _device(run: Store) -> str:
    """What a run was trained on, by its configuration; older runs leave that open."""
    if not run.exists(CONFIG):
        return ""
    text = run.read(CONFIG)
    config = yaml.safe_load(text)
    on_gpu = config["train"]["use_gpu"] is True
    return "a GPU" if on_gpu else "the CPU"


def _count_openings(store: Store) -> int:
    """Lines of a cell's ledger; raises IntegrityError if it is damaged."""
    with store.reading(LEDGER):
        lines = store.read(LEDGER).decode().splitlines()
        return len([json.loads(line) for line in lines])


# -- the table

Cells = Mapping[int, Mapping[str, Cell]]
"""Seed -> row's label -> cell."""


def difference(cells: Cells, label: str, base: str | None, column: Column) -> Interval:
    """A row's mean, or its paired difference to another row, with the interval."""
    runs = _over_seeds(cells, label, column)
    baselines = None if base is None else _over_seeds(cells, base, column)
    return interval(runs, column[0], baselines)


def _over_seeds(cells: Cells, label: str, column: Column) -> list[Predicted]:
    return [cells[seed][label].predicted[column] for seed in sorted(cells)]


def openings(cells: Cells) -> Counter[int]:
    """Openings of the test images -> number of cells."""
    found = Counter[int]()
    for rows in cells.values():
        found.update(cell.openings for cell in rows.values())
    return found


def compare_hash(config: Config, table: str) -> str:
    """The name of a comparison: a hash of everything that decides it but the seed."""
    parts = ("data", "hard", "plan", "generator", "filter", "curriculum", "train")
    any_seed = config.model_copy(update={"seed": 0})
    return part_hash(any_seed, parts, table)[:8]
