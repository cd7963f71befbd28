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
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ray import tune

from discl_ray.config import PHASE_2, Config, dump_config, part_hash, with_values
from discl_ray.core.run_directory import run_store
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.experiments.rows import SHARED, table_of
from discl_ray.experiments.training import train_row
from discl_ray.experiments.tune.outcomes import DEV, Seeded, Sweep, read_outcome, write_outcome
from discl_ray.experiments.tune.rungs import Rungs
from discl_ray.experiments.tune.space import DRIVER, Dimension, draw_points, shown
from discl_ray.experiments.tune.trial import run_trial, said_of
from discl_ray.spectrum.open import Spectrum

RAY_TUNE = "ray_tune"


CLOCK = "clock.json"


def sweep_store(config: Config, spectra: Sequence[Spectrum]) -> Store:
    """A sweep's directory: another space, search, configuration or spectrum is another one."""
    settings = config.tune.model_dump(mode="json", exclude={"concurrent", "time_limit_s"})
    before = [settings, *(spectrum.name for spectrum in spectra)]
    return run_store(
        config.run.root,
        config.run.name,
        f"tune-{part_hash(config, PHASE_2, json.dumps(before))[:8]}",
    )


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
            self._limit, self._spent = (
                self.store.read_json(CLOCK)[key] for key in ("limit_s", "spent_s")
            )
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
        if not self.sweep.store.exists(name) or not read_outcome(self.sweep.store, name).reason:
            epochs = with_values(self.sweep.config, point).train.epochs
            write_outcome(
                self.sweep,
                point,
                rows=None,
                epochs=epochs,
                reason="its process died (killed, or out of memory)",
            )
        self._tell(trials, trial)

    def _tell(self, trials: list[Any], trial: Any) -> None:
        point = self.sweep.point(trial.config)
        name = self.sweep.record(point)
        if not self.sweep.store.exists(name):
            return
        found = read_outcome(self.sweep.store, name)
        ended = 1 + sum(t.status in ("TERMINATED", "ERROR") for t in trials if t is not trial)
        total = len(self.sweep.points) or self.sweep.config.tune.trials
        said = found.reason or f"val {found.dev:.1f} %"
        print(
            f"  {ended}/{total} · {found.status} at epoch {found.epoch} · {said} · {shown(point)}",
            flush=True,
        )


def lay_out_sweep(
    seeds: Sequence[tuple[Config, Spectrum]], dimensions: Sequence[Dimension]
) -> Sweep:
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
            start = train_row(
                own, spectrum, label=f"{SHARED}, seed {own.seed}", start=None, is_start=True
            )[0].store
        else:
            table_of(own, spectrum)
        seeded.append(Seeded(config=own, spectrum=spectrum, start=start))
    points = (
        draw_points(dimensions, config.tune.trials, config.tune.seed)
        if config.tune.search == "random"
        else ()
    )
    return Sweep(dimensions=tuple(dimensions), points=points, seeded=tuple(seeded), store=store)


def run_sweep(sweep: Sweep) -> bool:
    """Runs what is left of a sweep; a killed one goes on where it was. False if its time was over before its trials were."""
    os.environ.setdefault(
        "TUNE_GLOBAL_CHECKPOINT_S", "2"
    )  # what is not noted when the driver is killed is run again
    os.environ.setdefault(
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"
    )  # the trials' own records say the same
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
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, sweep=sweep), _resources(sweep.config)
    )
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
        print(
            f"  {path}: cannot be read ({said_of(error)[:120]}); trials that are not over start over",
            flush=True,
        )
        sweep.store.filesystem.delete_dir(path)
        return None


def _begun(sweep: Sweep, trainable: Any) -> tune.Tuner:
    """Ray Tune from the beginning; trials that are over say so by their records."""
    store, settings = sweep.store, sweep.config.tune
    return tune.Tuner(
        trainable,
        param_space={"point": tune.grid_search(list(range(len(sweep.points))))}
        if sweep.points
        else _domains(sweep),
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
            return {
                "limit_s": known["limit_s"] and float(known["limit_s"]),
                "spent_s": float(known["spent_s"]),
            }
    except IntegrityError:
        return anew


def _can_go_on(sweep: Sweep) -> bool:
    """Whether Ray Tune's own state, and the record of every trial that it began, can be read.

    Says so where it is begun anew, and strikes damaged records.
    """
    store, whole = sweep.store, True
    for name in store.list("trials", ".json"):
        try:
            read_outcome(store, name)
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
        print(
            f"  {store.path('trials')}: {lost} records are gone; their trials are trained again",
            flush=True,
        )
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
