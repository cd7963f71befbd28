"""One trial of a sweep: in its own process, resumed bit for bit, or as a Ray Train run."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from torch import Tensor

from discl_ray.config import with_values
from discl_ray.core.storage import Store
from discl_ray.curriculum.controller import LocalController
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.experiments.rows import PlannedRun, plan_run, table_of
from discl_ray.experiments.stages import check_kept
from discl_ray.experiments.tune.outcomes import (
    DEV,
    METRICS,
    SEEN,
    Seeded,
    Sweep,
    read_outcome,
    write_outcome,
)
from discl_ray.experiments.tune.space import Point
from discl_ray.report.history import synthetic_seen
from discl_ray.train.checkpoint import LoopState, load_checkpoint, save_checkpoint
from discl_ray.train.images.table import ImageTable, open_table
from discl_ray.train.loop import Report, loop

log = logging.getLogger(__name__)

ROWS = "rows.json"

Row = dict[str, Any]
"""One epoch of a trial as it is recorded and reported."""

POLL_S = 0.5
"""Seconds between two looks at the metrics of a Ray Train run."""


def run_trial(parameters: Mapping[str, Any], *, sweep: Sweep) -> None:
    """One trial, in the process Ray Tune gave it; one that is over only repeats its reports."""
    point = sweep.point(parameters)
    name = sweep.record(point)
    if sweep.store.exists(name):
        before = read_outcome(sweep.store, name)
        if before.over:
            for row in before.rows:
                tune.report(row)
            return
    epochs = with_values(sweep.config, point).train.epochs
    try:
        if sweep.config.train.alone:
            _in_process(sweep, point, epochs)
        else:
            _under_ray_train(sweep, point, epochs)
    except Exception as error:
        reason = one_line(error)
        write_outcome(sweep, point, rows=None, epochs=epochs, reason=reason)
        raise


def one_line(error: BaseException) -> str:
    """An error as one line of at most 300 characters."""
    words = " ".join(str(error).split())
    return words[:300] or type(error).__name__


def measured(
    metrics: Sequence[Mapping[str, float]], bests: Sequence[float | None]
) -> tuple[str, float]:
    """The metric's name and its mean over seeds.

    Where the best weights are kept, `bests` holds the best epoch's metric by seed, else None.

    Raises DisclError if the metric is missing or not finite.
    """
    present = [name for name in METRICS if name in metrics[0]]
    name = present[0] if present else METRICS[-1]
    values: list[float] = []
    for own, best in zip(metrics, bests, strict=True):
        if best is None:
            best = own.get(name, math.nan)
        values.append(best)
    value = math.fsum(values) / len(values)
    if not math.isfinite(value):
        raise DisclError(f"{name} is {value}: there is nothing to judge the trial by")
    return name, value


class _Paused(Exception):
    """Carries a report out of the loop, which is resumed from its state."""

    def __init__(self, report: Report) -> None:
        self.report = report


@dataclass(frozen=True, kw_only=True)
class _SeedRun:
    """A point in one seed."""

    planned: PlannedRun
    table: ImageTable
    start: dict[str, Tensor] | None

    def up_to_report(self, state: LoopState | None) -> Report:
        """Trains from a state (None: from the start) to the next report: seeds take turns."""
        job = self.planned.job
        controller = LocalController(job.curriculum, job.levels, job.seed)

        def pause(report: Report) -> None:
            raise _Paused(report)

        start = self.start if state is None else None
        try:
            loop(
                job,
                self.table,
                controller,
                pause,
                start=start,
                resume=state,
                epochs=self.planned.epochs,
            )
        except _Paused as paused:
            return paused.report
        raise IntegrityError("the loop ended without a report")


def _in_process(sweep: Sweep, point: Point, epochs: int) -> None:
    torch.set_num_threads(1)
    runs = [_seed_run(seeded, point) for seeded in sweep.seeded]
    states, rows = _resumed(len(runs))
    write_outcome(sweep, point, rows=rows, epochs=epochs)
    while not rows or rows[-1]["epoch"] < epochs:
        reports = [run.up_to_report(state) for run, state in zip(runs, states, strict=True)]
        states = [report.state for report in reports]
        row = _row_of(reports)
        rows = [*rows, row]
        with tempfile.TemporaryDirectory() as folder:
            _save(Path(folder), reports, rows)
            # the record comes first: a rung may only know what a resumed sweep finds recorded
            write_outcome(sweep, point, rows=rows, epochs=epochs)
            checkpoint = tune.Checkpoint.from_directory(folder)
            tune.report(row, checkpoint=checkpoint)


def _start_of(seeded: Seeded) -> dict[str, Tensor] | None:
    """The weights that the trials of a seed begin with, if they share a start."""
    from discl_ray.train.run_files import load_weights

    if seeded.start is None:
        return None
    return load_weights(seeded.start)


def _seed_run(seeded: Seeded, point: Point) -> _SeedRun:
    """A point in one seed; raises ConfigError if a stage has no image."""
    config = with_values(seeded.config, point)
    planned = plan_run(config, seeded.spectrum)
    check_kept(planned, seeded.spectrum)
    start = _start_of(seeded)
    table = open_table(table_of(config, seeded.spectrum))
    return _SeedRun(planned=planned, table=table, start=start)


def _row_of(reports: Sequence[Report]) -> Row:
    """One epoch's row of a trial, from the reports of its seeds."""
    metrics = [report.metrics for report in reports]
    bests: list[float | None] = []
    for report in reports:
        best = report.state.best
        bests.append(None if best is None else best.value)
    name, value = measured(metrics, bests)
    histories = [list(report.state.history.values()) for report in reports]
    seen = _seen(histories)
    lam = metrics[0]["lam"]
    return _row(name, value, reports[0].epoch, lam, seen)


def _row(name: str, value: float, epoch: int, lam: object, seen: float | None) -> Row:
    return {DEV: value, "metric": name, "epoch": epoch, "lam": lam, SEEN: seen}


def _save(folder: Path, reports: Sequence[Report], rows: Sequence[Row]) -> None:
    """A trial's checkpoint: the state of each seed, and all rows so far."""
    for number, report in enumerate(reports):
        part = folder / str(number)
        part.mkdir()
        save_checkpoint(part, report.state)
    (folder / ROWS).write_text(json.dumps(rows))


def _seen(histories: Sequence[Sequence[Mapping[str, Any]]]) -> float | None:
    """Synthetic images in the epochs of each seed, the mean over seeds; None if unknown."""
    found = [synthetic_seen(history) for history in histories]
    known = [number for number in found if number is not None]
    if len(known) < len(found):
        return None
    return sum(known) / len(known)


def _resumed(seeds: int) -> tuple[list[LoopState | None], list[Row]]:
    """States by seed and rows from the trial's checkpoint; none if it is missing or damaged."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as name:
            folder = Path(name)
            try:
                rows = json.loads((folder / ROWS).read_text())
                return [load_checkpoint(folder / str(seed)) for seed in range(seeds)], rows
            except (IntegrityError, OSError, ValueError) as error:
                log.warning("%s; the trial starts over", error)
    return [None] * seeds, []


def _under_ray_train(sweep: Sweep, point: Point, epochs: int) -> None:
    """A trial of several workers: a Ray Train run, which resumes by itself.

    Its metrics are passed on while it trains.
    """
    from discl_ray.train.trainer import train

    (seeded,) = sweep.seeded
    config = with_values(seeded.config, point)
    planned = plan_run(config, seeded.spectrum)
    check_kept(planned, seeded.spectrum)
    run = sweep.store.within(f"trials/{planned.store.name}")
    start = _start_of(seeded)
    write_outcome(sweep, point, rows=[], epochs=epochs)
    table = table_of(config, seeded.spectrum)
    follower = _Follower(sweep, point, run, best=config.train.keep == "best")
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(
            train,
            planned.job,
            run=run,
            table=table,
            epochs=epochs,
            label=sweep.record(point),
            start=start,
            guarded=True,
        )
        ended = False
        while not ended:
            ended = training.done()  # asked first, so that the last epoch is read after the end
            follower.report_new(epochs)
            time.sleep(0.0 if ended else POLL_S)
        training.result()
    if not follower.rows or follower.rows[-1]["epoch"] < epochs:
        raise DisclError("the run ended without a metric on val")


class _Follower:
    """Reports each new epoch of a Ray Train run to Ray Tune."""

    def __init__(self, sweep: Sweep, point: Point, run: Store, *, best: bool) -> None:
        self.sweep = sweep
        self.point = point
        self.run = run
        self.best = best
        """Whether the best weights are kept, so that the best value so far counts."""
        self.rows: list[Row] = []

    def report_new(self, epochs: int) -> None:
        """Records and reports the epochs with a metric that were not reported before."""
        from discl_ray.train.run_files import METRICS as WRITTEN
        from discl_ray.train.run_files import read_history

        history = read_history(self.run) if self.run.exists(WRITTEN) else []
        best = -math.inf
        for number, found in enumerate(history, 1):
            if not any(name in found for name in METRICS):
                continue
            name, value = measured([found], [None])
            best = max(best, value)
            epoch = found["epoch"]
            if self.rows and epoch <= self.rows[-1]["epoch"]:
                continue
            seen = _seen([history[:number]])
            value = best if self.best else value
            row = _row(name, value, epoch, found["lam"], seen)
            self.rows.append(row)
            write_outcome(self.sweep, self.point, rows=self.rows, epochs=epochs)
            tune.report(row)
