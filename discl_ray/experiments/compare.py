"""Strategies x seeds -> one table: means, and intervals of the paired differences to a baseline.

A seed redraws the writers' roles, which digits are rare, which images a rare class keeps, initialisation and generation noise; the
rows of one seed share all of that and their start. Each seed is one Ray task on one CPU, running the loop that Ray Train runs, in
process. Finished cells are kept as JSON and not computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats

from discl_ray.config import Config, part_hash
from discl_ray.core.storage import Store
from discl_ray.curriculum.controller import LocalController
from discl_ray.evaluate.metrics import GROUPS
from discl_ray.evaluate.test_split import evaluate_test
from discl_ray.experiments.rows import PlannedRun, RowSpec, plan_run, with_table
from discl_ray.report.tables import percent
from discl_ray.run import run_store
from discl_ray.train.loop import Report, loop
from discl_ray.train.table import ImageTable, local_copy

Cell = dict[str, list[float]]
"""Group -> [top-1 in percent, images]."""


def cell_store(config: Config, planned: PlannedRun) -> Store:
    """Where a cell of the table lies: apart from `make train`'s runs, under the same root."""
    directory = planned.store.base.rsplit("/", 1)[-1]
    return run_store(config.run.root, config.run.name, f"compare/{directory}")


def train_in_process(
    planned: PlannedRun, store: Store, table: str, start: dict[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    """The loop without Ray Train; returns the weights."""
    controller = LocalController(planned.job.curriculum.strategy, planned.levels, planned.job.curriculum.epochs)
    model = loop(
        planned.job,
        ImageTable.open(local_copy(store, table)),
        controller,
        _ignore,
        start=start,
        epochs=planned.epochs,
    )
    return model.state_dict()


def _ignore(_report: Report) -> None:
    """Cells are short: a killed one is computed again from its start."""


def compare_seed(config: Config, generated: Store, rows: Sequence[RowSpec]) -> dict[str, Cell]:
    """All rows of one seed; trains only what has no result yet."""
    torch.set_num_threads(1)
    cells: dict[str, Cell] = {}
    start: dict[str, torch.Tensor] | None = None
    for row in rows:
        planned = plan_run(row.of(config), generated, start=False)
        store = cell_store(config, planned)
        if not store.exists("cell.json"):
            if start is None:
                first, table = with_table(plan_run(config, generated, start=True), config, generated)
                start = train_in_process(first, first.store, table, None)
            planned = PlannedRun(
                job=planned.job, levels=planned.levels, store=store, config_hash=planned.config_hash, epochs=planned.epochs
            )
            planned, table = with_table(planned, row.of(config), generated)
            weights = train_in_process(planned, store, table, start)
            result = evaluate_test(planned.job, weights, generated=generated, run=store, config_hash=planned.config_hash)
            store.write_json("cell.json", {group: list(value) for group, value in result.items()})
        cells[row.label] = store.read_json("cell.json")
    return cells


def interval(values: np.ndarray, *, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % percentile-bootstrap interval over seeds."""
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return mean, mean, mean
    result = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(seed))
    return mean, float(result.confidence_interval.low), float(result.confidence_interval.high)


def markdown(cells: dict[int, dict[str, Cell]], rows: Sequence[RowSpec], baselines: dict[str, str]) -> str:
    """Means over seeds, then the paired differences of each row to its baseline with their intervals."""
    seeds = sorted(cells)
    values: dict[tuple[str, str], Any] = {
        (row.label, group): np.array([cells[s][row.label][group][0] for s in seeds]) for row in rows for group in GROUPS
    }
    head = "| " + " | ".join(["top-1 on test [%], mean over seeds", *GROUPS]) + " |"
    lines = [head, "|---" * (len(GROUPS) + 1) + "|"]
    for row in rows:
        lines.append("| " + " | ".join([row.label, *(percent(float(values[row.label, g].mean())) for g in GROUPS)]) + " |")
    lines += ["", "| paired difference, mean [95 % interval] | " + " | ".join(GROUPS) + " |", "|---" * (len(GROUPS) + 1) + "|"]
    for label, base in baselines.items():
        parts = []
        for group in GROUPS:
            mean, low, high = interval(values[label, group] - values[base, group])
            parts.append(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]")
        lines.append("| " + " | ".join([f"{label} − {base}", *parts]) + " |")
    return "\n".join(lines)


def compare_hash(config: Config) -> str:
    """Names a comparison by everything that decides it but the seed."""
    return part_hash(
        config.model_copy(update={"seed": 0}), ("data", "hard", "plan", "generator", "filter", "curriculum", "train")
    )[:8]
