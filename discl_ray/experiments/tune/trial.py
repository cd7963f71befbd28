"""One trial of a sweep: in its own process, resumed bit for bit, or as a Ray Train run of several workers."""

from __future__ import annotations

import json
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
from discl_ray.curriculum.controller import LocalController
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.experiments.rows import PlannedRun, plan_run, table_of
from discl_ray.experiments.stages import check_kept
from discl_ray.experiments.tune.outcomes import (
    DEV,
    METRICS,
    SEEN,
    Sweep,
    read_outcome,
    write_outcome,
)
from discl_ray.experiments.tune.space import Point
from discl_ray.report.history import synthetic_seen
from discl_ray.train.checkpoint import LoopState, load_checkpoint, save_checkpoint
from discl_ray.train.images.table import ImageTable, open_table
from discl_ray.train.loop import Report, loop

ROWS = "rows.json"


def run_trial(parameters: Mapping[str, Any], *, sweep: Sweep) -> None:
    """One trial, in the process that Ray Tune gave it; one that is over only says again what it said."""
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
        write_outcome(sweep, point, rows=None, epochs=epochs, reason=said_of(error))
        raise


def said_of(error: BaseException) -> str:
    """An error on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def measured(
    metrics: Sequence[Mapping[str, float]], bests: Sequence[float | None]
) -> tuple[str, float]:
    """The metric's name and its mean over seeds; of the best epoch so far where those weights are kept.

    Raises DisclError if it is missing or no number.
    """
    name = next((n for n in METRICS if n in metrics[0]), METRICS[-1])
    values = [
        m.get(name, math.nan) if best is None else best
        for m, best in zip(metrics, bests, strict=True)
    ]
    value = math.fsum(values) / len(values)
    if not math.isfinite(value):
        raise DisclError(f"{name} is {value}: there is nothing to judge the trial by")
    return name, value


class _Paused(Exception):
    """Carries a report out of the loop, which is entered again with it."""

    def __init__(self, report: Report) -> None:
        self.report = report


@dataclass(frozen=True, kw_only=True)
class _SeedRun:
    """A point in one seed."""

    planned: PlannedRun
    table: ImageTable
    start: dict[str, Tensor] | None

    def up_to_report(self, state: LoopState | None) -> Report:
        """Trains from a state (None: from the start) to the next report: seeds take turns, and none is ahead."""
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
    from discl_ray.train.run_files import load_weights

    torch.set_num_threads(1)
    runs = []
    for seeded in sweep.seeded:
        config = with_values(seeded.config, point)
        planned = plan_run(config, seeded.spectrum)
        check_kept(planned, seeded.spectrum)
        start = None if seeded.start is None else load_weights(seeded.start)
        runs.append(
            _SeedRun(
                planned=planned, table=open_table(table_of(config, seeded.spectrum)), start=start
            )
        )
    states, rows = _resumed(len(runs))
    write_outcome(sweep, point, rows=rows, epochs=epochs)
    while not rows or rows[-1]["epoch"] < epochs:
        reports = [run.up_to_report(state) for run, state in zip(runs, states, strict=True)]
        states = [report.state for report in reports]
        name, value = measured(
            [report.metrics for report in reports],
            [None if report.state.best is None else report.state.best.value for report in reports],
        )
        seen = _seen([list(report.state.history.values()) for report in reports])
        rows = [
            *rows,
            {
                DEV: value,
                "metric": name,
                "epoch": reports[0].epoch,
                "lam": reports[0].metrics["lam"],
                SEEN: seen,
            },
        ]
        with tempfile.TemporaryDirectory() as folder:
            for number, report in enumerate(reports):
                (part := Path(folder) / str(number)).mkdir()
                save_checkpoint(part, report.state)
            (Path(folder) / ROWS).write_text(json.dumps(rows))
            write_outcome(sweep, point, rows=rows, epochs=epochs)
            tune.report(rows[-1], checkpoint=tune.Checkpoint.from_directory(folder))


def _seen(histories: Sequence[Sequence[Mapping[str, Any]]]) -> float | None:
    """Synthetic images of an epoch's records, the mean over seeds."""
    found = [synthetic_seen(history) for history in histories]
    known = [number for number in found if number is not None]
    return sum(known) / len(known) if len(known) == len(found) else None


def _resumed(seeds: int) -> tuple[list[LoopState | None], list[dict[str, Any]]]:
    """States by seed and rows from the trial's checkpoint; from nothing if there is none, or it is damaged."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            try:
                return [load_checkpoint(Path(folder) / str(i)) for i in range(seeds)], json.loads(
                    (Path(folder) / ROWS).read_text()
                )
            except (IntegrityError, OSError, ValueError) as error:
                print(f"warning: {error}; the trial starts over", flush=True)
    return [None] * seeds, []


def _under_ray_train(sweep: Sweep, point: Point, epochs: int) -> None:
    """A trial of several workers: a Ray Train run, whose metrics are passed on while it trains. It resumes by itself."""
    from discl_ray.train.run_files import METRICS as WRITTEN
    from discl_ray.train.run_files import load_weights, read_history
    from discl_ray.train.trainer import train

    (seeded,) = sweep.seeded
    config = with_values(seeded.config, point)
    planned = plan_run(config, seeded.spectrum)
    check_kept(planned, seeded.spectrum)
    run = sweep.store.within(f"trials/{planned.store.name}")
    start = None if seeded.start is None else load_weights(seeded.start)
    rows: list[dict[str, Any]] = []
    write_outcome(sweep, point, rows=rows, epochs=epochs)
    label = sweep.record(point)
    table = table_of(config, seeded.spectrum)
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(
            train,
            planned.job,
            run=run,
            table=table,
            epochs=epochs,
            label=label,
            start=start,
            guarded=True,
        )
        ended = False
        while not ended:
            ended = training.done()
            best: float | None = None
            history = read_history(run) if run.exists(WRITTEN) else []
            for number, found in enumerate(history, 1):
                if not any(name in found for name in METRICS):
                    continue
                _, value = measured([found], [None])
                best = value if best is None else max(best, value)
                if rows and found["epoch"] <= rows[-1]["epoch"]:
                    continue
                name, value = measured([found], [best if config.train.keep == "best" else None])
                seen = _seen([history[:number]])
                rows.append(
                    {
                        DEV: value,
                        "metric": name,
                        "epoch": found["epoch"],
                        "lam": found["lam"],
                        SEEN: seen,
                    }
                )
                write_outcome(sweep, point, rows=rows, epochs=epochs)
                tune.report(rows[-1])
            time.sleep(0.0 if ended else 0.5)
        training.result()
    if not rows or rows[-1]["epoch"] < epochs:
        raise DisclError("the run ended without a metric on val")
