"""Sweeps under Ray Tune: points of a space, each trained from the seed's start on its spectrum, the best on val wins.

    runs/<name>/tune-<hash8>/config.yaml          the configuration with the space
    runs/<name>/tune-<hash8>/trials/<id>.json     a trial: its values, what it measured, why it failed
    runs/<name>/tune-<hash8>/ray_tune/            Ray Tune's own state and checkpoints
    runs/<name>/tune-<hash8>/tune.md, tune.png    the table and the picture
    runs/<name>/tune-<hash8>/best.yaml            the best values, to be laid over the configuration

A trial with one worker runs the loop in its own process and goes on from its last checkpoint, bit for bit; one with more waits for
a Ray Train run. A trial that fails, or whose metric is no number, does not win and ends no other. The test images are not opened.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from torch import Tensor

from discl_ray.config import PHASE_2, Config, dump_config, part_hash, with_values
from discl_ray.core.ids import stable_id
from discl_ray.core.run_directory import MANIFEST, run_store
from discl_ray.core.storage import Store
from discl_ray.curriculum.controller import LocalController
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.experiments.rows import SHARED, PlannedRun, plan_run, table_of, train_row
from discl_ray.experiments.stages import check_kept
from discl_ray.experiments.tune.space import DRIVER, Dimension, Point, draw_points, shown
from discl_ray.report.history import synthetic_seen
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.checkpoint import load_checkpoint, save_checkpoint
from discl_ray.train.images.table import ImageTable, open_table
from discl_ray.train.loop import Report, loop

DEV = "dev"
"""What a sweep goes by, under this name to Ray Tune: the first of METRICS that a task has, the mean over seeds."""

METRICS = ("val_macro_f1_ood", "val_top1_overall")

SEEN = "synthetic_seen"
"""In a trial's record: synthetic images up to an epoch, the mean over seeds; null where they were not told apart."""

REDUCTION = 3
"""ASHA: of so many trials that reach a rung, one goes on."""

RAY_TUNE = "ray_tune"
CLOCK = "clock.json"
TRAIN_AGAIN = "its trial is trained again"
ROWS = "rows.json"


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """One seed of a sweep."""

    config: Config
    spectrum: Spectrum
    start: Store | None
    """The finished start run; None starts from nothing."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Everything a trial has to know; small, and sent to each."""

    dimensions: tuple[Dimension, ...]
    points: tuple[Point, ...]
    """Drawn beforehand; empty where a search draws them one after the other."""
    seeded: tuple[Seeded, ...]
    store: Store

    @property
    def config(self) -> Config:
        """The configuration the points are laid over."""
        return self.seeded[0].config

    def point(self, parameters: Mapping[str, Any]) -> Point:
        """The point of a trial from what Ray Tune gave it."""
        if self.points:
            return self.points[parameters["point"]]
        return {d.key: d.values[v] if d.kind == "choice" else d.value(v) for d in self.dimensions for v in [parameters[d.key]]}

    def record(self, point: Point) -> str:
        """The file of a trial."""
        return _record(point)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a trial."""

    point: Point
    rows: tuple[dict[str, Any], ...]
    """What was reported, by epoch."""
    epochs: int
    """What it was to train."""
    reason: str = ""
    """Why it failed."""
    judged: bool = False
    """Whether the scheduler has stopped it."""

    @property
    def over(self) -> bool:
        """Whether there is nothing left to train."""
        return self.status == "finished" or self.judged

    @property
    def seen(self) -> float | None:
        """Synthetic images it was trained on, the mean over seeds; None if that was not recorded."""
        return self.rows[-1].get(SEEN) if self.rows else None

    @property
    def epoch(self) -> int:
        """The last epoch that was reported."""
        return self.rows[-1]["epoch"] if self.rows else 0

    @property
    def dev(self) -> float:
        """The metric of the weights it would leave, NaN without one."""
        return self.rows[-1][DEV] if self.rows else math.nan

    @property
    def status(self) -> str:
        """finished, failed, or stopped before its end."""
        return "failed" if self.reason else "finished" if self.epoch == self.epochs else "stopped"


def sweep_store(config: Config, spectra: Sequence[Spectrum]) -> Store:
    """A sweep's directory: another space, search, configuration or spectrum is another one."""
    settings = config.tune.model_dump(mode="json", exclude={"concurrent", "time_limit_s"})
    before = [settings, *(spectrum.name for spectrum in spectra)]
    return run_store(config.run.root, config.run.name, f"tune-{part_hash(config, PHASE_2, json.dumps(before))[:8]}")


def _record(point: Point) -> str:
    return f"trials/{stable_id(point)[:12]}.json"


# -- a trial


def run_trial(parameters: Mapping[str, Any], *, sweep: Sweep) -> None:
    """One trial, in the process that Ray Tune gave it; one that is over only says again what it said."""
    point = sweep.point(parameters)
    name = sweep.record(point)
    if sweep.store.exists(name):
        before = _outcome(sweep.store, name)
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
        _note(sweep, point, rows=None, epochs=epochs, reason=_said(error))
        raise


def _note(sweep: Sweep, point: Point, *, rows: Sequence[Mapping[str, Any]] | None, epochs: int, reason: str = "") -> None:
    """Writes a trial's record; without `rows` those that were there stay."""
    name = sweep.record(point)
    kept: Sequence[Mapping[str, Any]] = rows or ()
    if rows is None and sweep.store.exists(name):
        kept = sweep.store.read_json(name)["rows"]
    sweep.store.write_json(name, {"point": point, "epochs": epochs, "rows": list(kept), "reason": reason})


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def measured(metrics: Sequence[Mapping[str, float]], bests: Sequence[Mapping[str, Any] | None]) -> tuple[str, float]:
    """The metric's name and its mean over seeds; of the best epoch so far where those weights are kept.

    Raises DisclError if it is missing or no number.
    """
    name = next((n for n in METRICS if n in metrics[0]), METRICS[-1])
    values = [m.get(name, math.nan) if best is None else best["value"] for m, best in zip(metrics, bests, strict=True)]
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

    def up_to_report(self, state: Mapping[str, Any] | None) -> Report:
        """Trains from a state (None: from the start) to the next report: seeds take turns, and none is ahead."""
        job = self.planned.job
        controller = LocalController(job.curriculum, job.levels, job.seed)

        def pause(report: Report) -> None:
            raise _Paused(report)

        start = self.start if state is None else None
        try:
            loop(job, self.table, controller, pause, start=start, resume=state, epochs=self.planned.epochs)
        except _Paused as paused:
            return paused.report
        raise IntegrityError("the loop ended without a report")


def _in_process(sweep: Sweep, point: Point, epochs: int) -> None:
    from discl_ray.train.trainer import load_weights

    torch.set_num_threads(1)
    runs = []
    for seeded in sweep.seeded:
        config = with_values(seeded.config, point)
        planned = plan_run(config, seeded.spectrum)
        check_kept(planned, seeded.spectrum)
        start = None if seeded.start is None else load_weights(seeded.start)
        runs.append(_SeedRun(planned=planned, table=open_table(table_of(config, seeded.spectrum)), start=start))
    states, rows = _resumed(len(runs))
    _note(sweep, point, rows=rows, epochs=epochs)
    while not rows or rows[-1]["epoch"] < epochs:
        reports = [run.up_to_report(state) for run, state in zip(runs, states, strict=True)]
        states = [report.state for report in reports]
        name, value = measured([report.metrics for report in reports], [state["best"] for state in states if state])
        seen = _seen([list(report.state["curriculum"]["history"].values()) for report in reports])
        rows = [*rows, {DEV: value, "metric": name, "epoch": reports[0].epoch, "lam": reports[0].metrics["lam"], SEEN: seen}]
        with tempfile.TemporaryDirectory() as folder:
            for number, report in enumerate(reports):
                (part := Path(folder) / str(number)).mkdir()
                save_checkpoint(part, report.state)
            (Path(folder) / ROWS).write_text(json.dumps(rows))
            _note(sweep, point, rows=rows, epochs=epochs)
            tune.report(rows[-1], checkpoint=tune.Checkpoint.from_directory(folder))


def _seen(histories: Sequence[Sequence[Mapping[str, Any]]]) -> float | None:
    """Synthetic images of an epoch's records, the mean over seeds."""
    found = [synthetic_seen(history) for history in histories]
    known = [number for number in found if number is not None]
    return sum(known) / len(known) if len(known) == len(found) else None


def _resumed(seeds: int) -> tuple[list[Mapping[str, Any] | None], list[dict[str, Any]]]:
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
    from discl_ray.train.trainer import METRICS as WRITTEN
    from discl_ray.train.trainer import load_weights, read_history, train

    (seeded,) = sweep.seeded
    config = with_values(seeded.config, point)
    planned = plan_run(config, seeded.spectrum)
    check_kept(planned, seeded.spectrum)
    run = sweep.store.within(f"trials/{planned.store.name}")
    start = None if seeded.start is None else load_weights(seeded.start)
    rows: list[dict[str, Any]] = []
    _note(sweep, point, rows=rows, epochs=epochs)
    label = sweep.record(point)
    table = table_of(config, seeded.spectrum)
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train, planned.job, run=run, table=table, epochs=epochs, label=label, start=start, guarded=True)
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
                name, value = measured([found], [{"value": best} if config.train.keep == "best" else None])
                seen = _seen([history[:number]])
                rows.append({DEV: value, "metric": name, "epoch": found["epoch"], "lam": found["lam"], SEEN: seen})
                _note(sweep, point, rows=rows, epochs=epochs)
                tune.report(rows[-1])
            time.sleep(0.0 if ended else 0.5)
        training.result()
    if not rows or rows[-1]["epoch"] < epochs:
        raise DisclError("the run ended without a metric on val")


# -- the sweep


class Rungs(ASHAScheduler):
    """ASHA that does not forget: a sweep that is taken up again judges its trials by all that were ever at a rung.

    Ray Tune keeps no scheduler's state. The trials' records hold every report, so a rung is filled from them when Ray Tune adds its
    trials; the first report of one that goes on takes back what its record was ahead of its checkpoint, to be judged again. A verdict
    is written into the trial's record at once, and holds.
    """

    def __init__(self, sweep: Sweep, **settings: Any) -> None:
        super().__init__(time_attr="epoch", reduction_factor=REDUCTION, **settings)
        self.sweep = sweep
        self._heard: set[str] = set()
        self._over: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A new trial, or one of before, whose place at each rung is taken from its record."""
        super().on_trial_add(tune_controller, trial)
        before = self._before(trial)
        if before is None:
            return
        if before.over:
            self._over.add(trial.trial_id)
        for row in before.rows:
            self._trial_info[trial.trial_id].on_result(trial, row["epoch"], row[DEV])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ray Tune's verdict on a report; none on what a trial that is over says again."""
        if trial.trial_id in self._over:
            return self.CONTINUE
        if trial.trial_id not in self._heard and "epoch" in result:
            self._heard.add(trial.trial_id)
            self._take_back(trial, result["epoch"])
        verdict = super().on_trial_result(tune_controller, trial, result)
        if verdict == self.STOP and "epoch" in result:
            self._write(trial, result["epoch"])
        return verdict

    def _take_back(self, trial: Any, epoch: int) -> None:
        """Empties the trial's places at rungs that it had not reached before a report of this epoch."""
        before = self._before(trial)
        reached = max((row["epoch"] for row in (before.rows if before else ()) if row["epoch"] < epoch), default=0)
        for milestone, recorded in self._trial_info[trial.trial_id]._rungs:
            if milestone > reached:
                recorded.pop(trial.trial_id, None)

    def _before(self, trial: Any) -> Outcome | None:
        name = self.sweep.record(self.sweep.point(trial.config))
        return _outcome(self.sweep.store, name) if self.sweep.store.exists(name) else None

    def _write(self, trial: Any, epoch: int) -> None:
        """Notes a verdict before anything else can happen; not that of a trial that came to its end."""
        name = self.sweep.record(self.sweep.point(trial.config))
        record = self.sweep.store.read_json(name)
        if epoch < record["epochs"]:
            rows = [row for row in record["rows"] if row["epoch"] <= epoch]
            self.sweep.store.write_json(name, {**record, "rows": rows, "judged": True})


class _Deadline(tune.Stopper):
    """Ends the sweep when its time is spent, counted over all resumptions; looks even if no trial reports."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._last: float | None = None
        self._spent = self._written = 0.0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is ended for itself."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"])

    def stop_all(self) -> bool:
        """Whether the time is spent."""
        now = time.monotonic()
        if self._last is None:
            self._limit, self._spent = (self.store.read_json(CLOCK)[key] for key in ("limit_s", "spent_s"))
            self._written = self._spent
        else:
            self._spent += now - self._last
        self._last = now
        clock = {"limit_s": self._limit, "spent_s": self._spent}
        if self._spent - self._written > 1 or _is_over(clock):
            self._written = self._spent
            self.store.write_json(CLOCK, clock)
        return _is_over(clock)


def _is_over(clock: Mapping[str, Any]) -> bool:
    return clock["limit_s"] is not None and clock["spent_s"] >= clock["limit_s"]


class _Told(tune.Callback):
    """Prints a line for each trial that ends, and notes a failure that the trial could not note itself."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its end or was stopped."""
        self._tell(trials, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed; one whose process died has said nothing of it."""
        point = self.sweep.point(trial.config)
        name = self.sweep.record(point)
        if not self.sweep.store.exists(name) or not _outcome(self.sweep.store, name).reason:
            epochs = with_values(self.sweep.config, point).train.epochs
            _note(self.sweep, point, rows=None, epochs=epochs, reason="its process died (killed, or out of memory)")
        self._tell(trials, trial)

    def _tell(self, trials: list[Any], trial: Any) -> None:
        point = self.sweep.point(trial.config)
        name = self.sweep.record(point)
        if not self.sweep.store.exists(name):
            return
        found = _outcome(self.sweep.store, name)
        ended = 1 + sum(t.status in ("TERMINATED", "ERROR") for t in trials if t is not trial)
        total = len(self.sweep.points) or self.sweep.config.tune.trials
        said = found.reason or f"val {found.dev:.1f} %"
        print(f"  {ended}/{total} · {found.status} at epoch {found.epoch} · {said} · {shown(point)}", flush=True)


def lay_out_sweep(seeds: Sequence[tuple[Config, Spectrum]], dimensions: Sequence[Dimension]) -> Sweep:
    """The sweep of a configuration's seeds (config, spectrum), with the starts its trials share, which are trained here if need be.

    Ray has to be there.
    """
    config = seeds[0][0]
    store = sweep_store(config, [spectrum for _, spectrum in seeds])
    store.write("config.yaml", dump_config(config).encode())
    seeded = []
    for own, spectrum in seeds:
        start = None
        if own.train.start_steps:
            start = train_row(own, spectrum, label=f"{SHARED}, seed {own.seed}", start=None, is_start=True)[0].store
        else:
            table_of(own, spectrum)
        seeded.append(Seeded(config=own, spectrum=spectrum, start=start))
    points = draw_points(dimensions, config.tune.trials, config.tune.seed) if config.tune.search == "random" else ()
    return Sweep(dimensions=tuple(dimensions), points=points, seeded=tuple(seeded), store=store)


def run_sweep(sweep: Sweep) -> bool:
    """Runs what is left of a sweep; a killed one goes on where it was. False if its time was over before its trials were."""
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")  # what is not noted when the driver is killed is run again
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the trials' own records say the same
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # _Told speaks
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # likewise of what fails
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    store, settings = sweep.store, sweep.config.tune
    before = _clock(store)
    clock = {"limit_s": settings.time_limit_s, "spent_s": before["spent_s"]}
    if _is_over(clock):
        return False
    # Ray Tune does not take up what was stopped, nor what was damaged; what is over is known by its record
    if RAY_TUNE in store.folders() and (_is_over(before) or not _can_go_on(sweep)):
        store.filesystem.delete_dir(store.path(RAY_TUNE))
    store.write_json(CLOCK, clock)
    trainable = tune.with_resources(tune.with_parameters(run_trial, sweep=sweep), _resources(sweep.config))
    (_taken_up(sweep, trainable) or _begun(sweep, trainable)).fit()
    return not _is_over(_clock(store))


def _taken_up(sweep: Sweep, trainable: Any) -> tune.Tuner | None:
    """Ray Tune where it was; None if it has not begun, or cannot read what it wrote."""
    path, filesystem = sweep.store.path(RAY_TUNE), _filesystem(sweep)
    if not tune.Tuner.can_restore(path, storage_filesystem=filesystem):
        return None
    try:
        return tune.Tuner.restore(path, trainable, storage_filesystem=filesystem)
    except Exception as error:  # whatever garbage leads to when it is unpickled
        print(f"  {path}: cannot be read ({_said(error)[:120]}); trials that are not over start over", flush=True)
        sweep.store.filesystem.delete_dir(path)
        return None


def _begun(sweep: Sweep, trainable: Any) -> tune.Tuner:
    """Ray Tune from the beginning; trials that are over say so by their records."""
    store, settings = sweep.store, sweep.config.tune
    return tune.Tuner(
        trainable,
        param_space={"point": tune.grid_search(list(range(len(sweep.points))))} if sweep.points else _domains(sweep),
        tune_config=tune.TuneConfig(
            metric=DEV,
            mode="max",
            num_samples=1 if sweep.points else settings.trials,
            max_concurrent_trials=settings.concurrent,
            scheduler=_scheduler(sweep),
            search_alg=_search(sweep),
            reuse_actors=sweep.config.train.alone,
        ),
        run_config=tune.RunConfig(
            name=RAY_TUNE,
            storage_path=store.base,
            storage_filesystem=_filesystem(sweep),
            stop=_Deadline(store),
            callbacks=[_Told(sweep)],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    )


def _filesystem(sweep: Sweep) -> Any:
    """Ray's own for a local disk, else the store's."""
    return None if sweep.store.local is not None else sweep.store.filesystem


def _clock(store: Store) -> dict[str, Any]:
    """The time a sweep has taken; counted anew if the record is damaged."""
    anew = {"limit_s": None, "spent_s": 0.0}
    try:
        with store.reading(CLOCK):
            known = store.read_json(CLOCK)
            return {"limit_s": known["limit_s"] and float(known["limit_s"]), "spent_s": float(known["spent_s"])}
    except IntegrityError:
        return anew


def _can_go_on(sweep: Sweep) -> bool:
    """Whether Ray Tune's own state, and the record of every trial that it began, can be read.

    Says so where it is begun anew, and strikes damaged records.
    """
    store, whole = sweep.store, True
    for name in store.list("trials", ".json"):
        try:
            _outcome(store, name)
        except IntegrityError as error:
            print(f"  {error}", flush=True)
            store.delete(name)
            whole = False
    if not whole:
        return False
    try:
        lost = _ended(store) - len(store.list("trials", ".json"))
    except IntegrityError as error:
        print(f"  {error}", flush=True)
        return False
    if lost > 0:
        print(f"  {store.path('trials')}: {lost} records are gone; their trials are trained again", flush=True)
    return lost <= 0


def _ended(store: Store) -> int:
    """How many trials Ray Tune takes for ended; raises IntegrityError if part of what it wrote cannot be read."""
    remedy = "trials that are not over start over"
    files = store.list(RAY_TUNE, ".json")
    for name in files:
        store.read_json(name, remedy)
    states = [name for name in files if "/experiment_state" in name]
    if not states:
        raise IntegrityError(f"{store.path(RAY_TUNE)}: is gone; {remedy}")
    with store.reading(states[-1], remedy):
        trials = [json.loads(trial) for trial, _ in store.read_json(states[-1])["trial_data"]]
        return sum(trial["status"] in ("TERMINATED", "ERROR") for trial in trials)


def _resources(config: Config) -> Any:
    if not config.train.alone:
        return {"CPU": DRIVER}
    return {"CPU": 1, "GPU": 1} if config.train.on_gpu else {"CPU": 1}


def _domains(sweep: Sweep) -> dict[str, Any]:
    """The space as Ray Tune's; a choice by its number, as values may be lists."""
    of = {
        "choice": lambda d: tune.choice(list(range(len(d.values)))),
        "uniform": lambda d: tune.uniform(*d.values),
        "loguniform": lambda d: tune.loguniform(*d.values),
        "randint": lambda d: tune.randint(d.values[0], d.values[1] + 1),
    }
    return {d.key: of[d.kind](d) for d in sweep.dimensions}


def _search(sweep: Sweep) -> Any:
    if sweep.points:
        return None
    from ray.tune.search.optuna import OptunaSearch

    logging.getLogger("optuna").setLevel(logging.ERROR)
    return OptunaSearch(seed=sweep.config.tune.seed)


def _scheduler(sweep: Sweep) -> Any:
    settings = sweep.config.tune
    if settings.scheduler == "none":
        return None
    swept = (v for d in sweep.dimensions if d.key == "train.epochs" for v in d.values)
    longest = max([sweep.config.train.epochs, *swept])
    return Rungs(sweep, max_t=longest, grace_period=settings.grace)


# -- what came out


def _outcome(store: Store, name: str) -> Outcome:
    with store.reading(name, TRAIN_AGAIN):
        found = store.read_json(name, TRAIN_AGAIN)
        if _record(found["point"]) != name or not all({"epoch", "metric", DEV} <= row.keys() for row in found["rows"]):
            raise ValueError("no record of this trial")
        return Outcome(
            point=found["point"],
            rows=tuple(found["rows"]),
            epochs=found["epochs"],
            reason=found["reason"],
            judged=found.get("judged", False),
        )


def read_outcomes(store: Store) -> list[Outcome]:
    """Every trial that began, best first: those that finished by their metric, then those stopped by how far they came, then failures.

    A trial that was stopped cannot win: it was behind when it was, and its metric is of another epoch.
    """
    order = {"finished": 0, "stopped": 1, "failed": 2}

    def place(found: Outcome) -> tuple[int, int, float]:
        far = found.epoch if found.status == "stopped" else 0
        return order[found.status], -far, -found.dev if math.isfinite(found.dev) else math.inf

    return sorted((_outcome(store, name) for name in store.list("trials", ".json")), key=place)


def is_complete(store: Store) -> bool:
    """Whether a sweep came to its end and all it came to can be read; says what cannot."""
    if not store.exists(MANIFEST):
        return False
    try:
        remedy = "the sweep is looked through again"
        with store.reading(MANIFEST, remedy):
            trials = int(store.read_json(MANIFEST, remedy)["trials"])
        return len(read_outcomes(store)) == trials
    except IntegrityError as error:
        print(f"  {error}", flush=True)
        return False


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The best of those that finished; raises DisclError if none did."""
    if not outcomes or outcomes[0].status != "finished":
        reasons = dict.fromkeys(o.reason for o in outcomes if o.reason)
        raise DisclError("no trial finished" + "".join(f"\n  {reason}" for reason in reasons))
    return outcomes[0]
