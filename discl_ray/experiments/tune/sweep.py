"""Sweeps under Ray Tune: each point of a space is trained on the spectrum, the best on val wins.

    runs/<name>/tune-<hash8>/config.yaml          the configuration with the space
    runs/<name>/tune-<hash8>/trials/<id>.json     a trial: its values, its metrics, why it failed
    runs/<name>/tune-<hash8>/ray_tune/            Ray Tune's own state and checkpoints
    runs/<name>/tune-<hash8>/tune.md, tune.png    the table and the picture
    runs/<name>/tune-<hash8>/best.yaml            the best values, to be laid over the configuration

A trial with one worker runs the loop in its own process and resumes bit for bit from its last
checkpoint; one with more waits for a Ray Train run. A trial that fails, or whose metric is not
finite, cannot win and stops no other. The test images are not opened.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ray import tune

from discl_ray.config import PHASE_2, Config, dump_config, part_hash, with_values
from discl_ray.core.run_directory import run_store
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.experiments.rows import SHARED, table_of
from discl_ray.experiments.training import train_row
from discl_ray.experiments.tune.outcomes import DEV, Seeded, Sweep, read_outcome, write_outcome
from discl_ray.experiments.tune.rungs import Rungs
from discl_ray.experiments.tune.space import (
    DRIVER,
    LISTS,
    Dimension,
    draw_points,
    longest_trial,
    shown,
)
from discl_ray.experiments.tune.trial import one_line, run_trial
from discl_ray.spectrum.open import Spectrum

log = logging.getLogger(__name__)

RAY_TUNE = "ray_tune"

CLOCK = "clock.json"

ENDED = ("TERMINATED", "ERROR")
"""Ray Tune's status of trials that have ended."""


class Clock(NamedTuple):
    """The time of a sweep over all its resumptions, as CLOCK records it."""

    limit_s: float | None = None
    spent_s: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the time is spent."""
        return self.limit_s is not None and self.spent_s >= self.limit_s


def sweep_store(config: Config, spectra: Sequence[Spectrum]) -> Store:
    """A sweep's directory, named by its space, search, configuration and spectra."""
    settings = config.tune.model_dump(mode="json", exclude={"concurrent", "time_limit_s"})
    before = json.dumps([settings, *(spectrum.name for spectrum in spectra)])
    hash_ = part_hash(config, PHASE_2, before)
    return run_store(config.run.root, config.run.name, f"tune-{hash_[:8]}")


class Deadline(tune.Stopper):
    """Ends the sweep when its time is spent, counted over all resumptions.

    Ray Tune asks `stop_all` also while no trial reports.
    """

    def __init__(self, store: Store, now: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._now = now
        self._last: float | None = None
        self._clock = Clock()
        self._written_s = 0.0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped on its own."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store}  # Ray Tune pickles it; a resumed sweep reads the clock again

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"])

    def stop_all(self) -> bool:
        """Whether the time is spent."""
        now = self._now()
        if self._last is None:
            self._clock = Clock(**self.store.read_json(CLOCK))
            self._written_s = self._clock.spent_s
        else:
            spent_s = self._clock.spent_s + now - self._last
            self._clock = self._clock._replace(spent_s=spent_s)
        self._last = now
        if self._clock.spent_s - self._written_s > 1 or self._clock.is_over:
            self._written_s = self._clock.spent_s
            self.store.write_json(CLOCK, self._clock._asdict())
        return self._clock.is_over


class _Ended(tune.Callback):
    """Logs a line for each trial that ends, and records the failure of one whose process died."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial finished or was stopped."""
        self._log(trials, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed; if its process died, it could not record that itself."""
        point = self.sweep.point(trial.config)
        name = self.sweep.record(point)
        store = self.sweep.store
        recorded = store.exists(name) and read_outcome(store, name).reason
        if not recorded:
            epochs = with_values(self.sweep.config, point).train.epochs
            write_outcome(
                self.sweep,
                point,
                rows=None,
                epochs=epochs,
                reason="its process died (killed, or out of memory)",
            )
        self._log(trials, trial)

    def _log(self, trials: list[Any], trial: Any) -> None:
        point = self.sweep.point(trial.config)
        name = self.sweep.record(point)
        if not self.sweep.store.exists(name):
            return
        found = read_outcome(self.sweep.store, name)
        others = [other for other in trials if other is not trial]
        ended = 1 + sum(other.status in ENDED for other in others)
        total = len(self.sweep.points) or self.sweep.config.tune.trials
        result = found.reason or f"val {found.dev:.1f} %"
        where = f"{found.status} at epoch {found.epoch}"
        values = shown(point)
        log.info("%d/%d · %s · %s · %s", ended, total, where, result, values)


def lay_out_sweep(
    seeds: Sequence[tuple[Config, Spectrum]], dimensions: Sequence[Dimension]
) -> Sweep:
    """The sweep of some seeds (config, spectrum); trains the starts its trials share. Needs Ray."""
    config, _ = seeds[0]
    spectra = [spectrum for _, spectrum in seeds]
    store = sweep_store(config, spectra)
    text = dump_config(config)
    store.write("config.yaml", text.encode())
    seeded: list[Seeded] = []
    for own, spectrum in seeds:
        start = None
        if own.train.start_steps:
            label = f"{SHARED}, seed {own.seed}"
            planned, _ = train_row(own, spectrum, label=label, start=None, is_start=True)
            start = planned.store
        else:
            table_of(own, spectrum)  # built once here, not by the first trials at the same time
        seeded.append(Seeded(config=own, spectrum=spectrum, start=start))
    points = ()
    settings = config.tune
    if settings.search == "random":
        points = draw_points(dimensions, settings.trials, settings.seed)
    return Sweep(dimensions=tuple(dimensions), points=points, seeded=tuple(seeded), store=store)


def run_sweep(sweep: Sweep) -> bool:
    """Runs what is left of a sweep, also of a killed one. False if its time ended first."""
    # trials that ended after the last snapshot are run again if the driver is killed
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")
    # the trials' own records hold the same
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # _Ended logs
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # likewise of what fails
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    store, settings = sweep.store, sweep.config.tune
    before = _clock(store)
    clock = before._replace(limit_s=settings.time_limit_s)
    if clock.is_over:
        return False
    # Ray Tune does not resume what was stopped or damaged; trials that are over have their records
    has_state = RAY_TUNE in store.folders()
    if has_state and (before.is_over or not can_resume(store)):
        path = store.path(RAY_TUNE)
        store.filesystem.delete_dir(path)
    store.write_json(CLOCK, clock._asdict())
    trainable = tune.with_parameters(run_trial, sweep=sweep)
    trainable = tune.with_resources(trainable, _resources(sweep.config))
    tuner = _restored(sweep, trainable) or _new(sweep, trainable)
    tuner.fit()
    return not _clock(store).is_over


def _restored(sweep: Sweep, trainable: Any) -> tune.Tuner | None:
    """Ray Tune where it was; None if it has not started, or cannot read its own state."""
    path = sweep.store.path(RAY_TUNE)
    filesystem = _filesystem(sweep)
    if not tune.Tuner.can_restore(path, storage_filesystem=filesystem):
        return None
    try:
        return tune.Tuner.restore(path, trainable, storage_filesystem=filesystem)
    except Exception as error:  # unpickling damaged bytes may raise anything
        reason = one_line(error)[:120]
        place = sweep.store.location(RAY_TUNE)
        log.info("%s: cannot be read (%s); trials that are not over start over", place, reason)
        sweep.store.filesystem.delete_dir(path)
        return None


def _new(sweep: Sweep, trainable: Any) -> tune.Tuner:
    """Ray Tune from the beginning; trials that are over report their records and end."""
    store, settings = sweep.store, sweep.config.tune
    space = _domains(sweep)
    if sweep.points:
        numbers = list(range(len(sweep.points)))
        space = {"point": tune.grid_search(numbers)}
    return tune.Tuner(
        trainable,
        param_space=space,
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
            stop=Deadline(store),
            callbacks=[_Ended(sweep)],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    )


def _filesystem(sweep: Sweep) -> Any:
    """Ray's own for a local disk, else the store's."""
    if sweep.store.local is not None:
        return None
    return sweep.store.filesystem


def _clock(store: Store) -> Clock:
    """The time a sweep has taken; counted anew if the record is missing or damaged."""
    try:
        with store.reading(CLOCK):
            recorded = store.read_json(CLOCK)
            limit_s = recorded["limit_s"]
            if limit_s is not None:
                limit_s = float(limit_s)
            return Clock(limit_s, float(recorded["spent_s"]))
    except IntegrityError:
        return Clock()


def can_resume(store: Store) -> bool:
    """Whether Ray Tune's own state, and the record of every trial that it began, can be read.

    Logs what cannot be read, and deletes damaged records.
    """
    whole = True
    for name in store.list("trials", ".json"):
        try:
            read_outcome(store, name)
        except IntegrityError as error:
            log.info("%s", error)
            store.delete(name)
            whole = False
    if not whole:
        return False
    try:
        recorded = store.list("trials", ".json")
        lost = _ended(store) - len(recorded)
    except IntegrityError as error:
        log.info("%s", error)
        return False
    if lost > 0:
        records = "1 record is" if lost == 1 else f"{lost} records are"
        log.info("%s: %s gone; their trials are trained again", store.location("trials"), records)
    return lost <= 0


def _ended(store: Store) -> int:
    """How many trials Ray Tune counts as ended; raises IntegrityError if its state is damaged."""
    remedy = "trials that are not over start over"
    files = store.list(RAY_TUNE, ".json")
    for name in files:
        store.read_json(name, remedy)
    states = [name for name in files if "/experiment_state" in name]
    if not states:
        path = store.location(RAY_TUNE)
        raise IntegrityError(f"{path}: is gone; {remedy}")
    with store.reading(states[-1], remedy):
        state = store.read_json(states[-1])
        trials = [json.loads(trial) for trial, _ in state["trial_data"]]
        return sum(trial["status"] in ENDED for trial in trials)


def _resources(config: Config) -> Any:
    """What Ray Tune reserves for each trial."""
    if not config.train.alone:
        return {"CPU": DRIVER}
    if config.train.on_gpu:
        return {"CPU": 1, "GPU": 1}
    return {"CPU": 1}


def _domains(sweep: Sweep) -> dict[str, Any]:
    """The space in Ray Tune's terms."""
    return {dimension.key: _domain(dimension) for dimension in sweep.dimensions}


def _domain(dimension: Dimension) -> Any:
    values = dimension.values
    if dimension.kind in LISTS:  # by number, as the values may be lists themselves
        numbers = range(len(values))
        return tune.choice(list(numbers))
    low, high = values
    if dimension.kind == "randint":
        return tune.randint(low, high + 1)
    if dimension.kind == "loguniform":
        return tune.loguniform(low, high)
    return tune.uniform(low, high)


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
    longest = longest_trial(sweep.config, sweep.dimensions)
    return Rungs(sweep, max_t=longest, grace_period=settings.grace)
