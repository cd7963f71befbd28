"""By how many workers a run is trained: recorded at each start, kept when the run is resumed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import yaml

from discl_ray.cluster.demand import Workers
from discl_ray.config import Config
from discl_ray.core.run_directory import CONFIG, MANIFEST
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.experiments.rows import PlannedRun
from discl_ray.train.workers import training

log = logging.getLogger(__name__)

WORKERS = "workers.json"
"""The workers of a run, start by start."""


def with_workers(planned: PlannedRun, label: str) -> PlannedRun:
    """The run with its workers: those it was started with, if they fit; else what is available.

    Another number than before is logged and recorded. Raises SetupError if what is asked for does
    not fit.
    """
    before = read_workers(planned.store)
    last = before[-1] if before else None
    finished = planned.store.exists(MANIFEST)
    if last is not None and finished:
        now = last
    else:
        now = training(planned.config.train, planned.config.run, last)
    if now != last:
        if last is not None:
            why = ""
            if now.number != last.number:
                why = _effect_of_number(planned.config, now)
            so_far = in_turn(before)
            message = f"{label}: goes on with {now}; so far it was trained by {so_far}. {why}"
            log.info("%s", message.rstrip())
        before = (*before, now)
    starts = [start._asdict() for start in before]
    planned.store.write_json(WORKERS, {"starts": starts})
    settled = {"workers": now.number, "use_gpu": now.gpu}
    train = planned.config.train.model_copy(update=settled)
    config = planned.config.model_copy(update={"train": train})
    job = replace(planned.job, train=train)
    return replace(planned, config=config, job=job, workers=before)


def in_turn(starts: Sequence[Workers]) -> str:
    """The workers of a run in words, start by start."""
    return ", then ".join(map(str, starts))


def read_workers(run: Store) -> tuple[Workers, ...]:
    """What a run was trained by, start by start.

    A run from before WORKERS was recorded, or one whose record is damaged, has what its
    configuration says; empty if that is missing too.
    """
    for name, read in ((WORKERS, _recorded), (CONFIG, _configured)):
        if not run.exists(name):
            continue
        try:
            return read(run)
        except IntegrityError as error:
            log.info("%s", error)
    return ()


def _recorded(run: Store) -> tuple[Workers, ...]:
    """What WORKERS says."""
    remedy = f"what {CONFIG} says is taken"
    with run.reading(WORKERS, remedy):
        starts = run.read_json(WORKERS, remedy)["starts"]
        if not starts:
            raise ValueError("no start")
        return tuple(_workers(start["number"], start["gpu"]) for start in starts)


def _configured(run: Store) -> tuple[Workers, ...]:
    """What CONFIG says."""
    with run.reading(CONFIG, "it counts as begun now"):
        try:
            train = yaml.safe_load(run.read(CONFIG))["train"]
        except yaml.YAMLError as error:
            raise ValueError(error) from error
        return (_workers(train["workers"], train["use_gpu"]),)


def _workers(number: object, gpu: object) -> Workers:
    """Raises ValueError for anything but a number of workers."""
    if not (isinstance(number, int) and number > 0 and isinstance(gpu, bool)):
        raise ValueError(f"{number} workers")
    return Workers(number, gpu)


def _effect_of_number(config: Config, now: Workers) -> str:
    """What the number of workers changes about the result; empty if nothing."""
    train = config.train
    if train.model == "clip" or train.norm != "batch":
        return ""
    share = train.batch // now.number
    return (
        f"Batch normalisation averages over the {share} images of a worker, so another number gives"
        " other figures; train.norm=group does not."
    )


def describe_workers(planned: Sequence[PlannedRun]) -> str:
    """By how many workers the rows of a table were trained, and what that changes, in sentences."""
    found: list[str] = []
    several = False
    for run in planned:
        words = in_turn(run.workers)
        if words and words not in found:
            found.append(words)
        if any(start.number > 1 for start in run.workers):
            several = True
    effect = ""
    if several:
        last = planned[-1]
        effect = _effect_of_number(last.config, last.workers[-1])
    every = "; ".join(found)
    return f"{every}. {effect}".rstrip()
