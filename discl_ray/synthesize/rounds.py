"""Rounds of attempts: the first is the plan, the next is what fell short in the one before.

Rerunning is resuming: shards with a commit record are left out, the others are made whole, and
their bytes do not depend on who makes them or when. When every shard is committed, nothing is
started at all.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack

import pyarrow as pa

from discl_ray.cluster.demand import Demand
from discl_ray.cluster.heartbeat import GeneratorSigns
from discl_ray.cluster.session import ray_session
from discl_ray.config import Config
from discl_ray.core.columns import rows_where
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.schema import PLAN
from discl_ray.plan.grid import next_attempt, without_shards
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.fold import fold
from discl_ray.spectrum.read import count_verdicts, open_spectrum
from discl_ray.spectrum.records import committed_ids
from discl_ray.spectrum.reuse import FILE as REUSED_FILE
from discl_ray.spectrum.verify import check_planned, drop_damaged, drop_strays
from discl_ray.synthesize.checks import crew
from discl_ray.synthesize.graph import run_graph
from discl_ray.synthesize.layout import holds_values, is_sound
from discl_ray.synthesize.rates import note_rate
from discl_ray.synthesize.run import Run, prepare

log = logging.getLogger(__name__)


def prepare_to_make(config: Config) -> tuple[Run, Demand | None]:
    """The run of a configuration, and its generators and scorers; None if nothing is left to make.

    Raises what `prepare` does, and SetupError if generators and scorers have no room.
    """
    run = prepare(config)
    # a finished run needs no room: any machine can look at it
    finished = run.store.exists(MANIFEST)
    return run, None if finished else crew(config)


def round_plan(run: Run, attempt: int) -> pa.Table:
    """The plan of one round of attempts, written once.

    The first is the run's plan, the next what failed in the committed one before.
    """
    if attempt == 0:
        return run.plan
    store, name = run.store, f"plan-{attempt}.parquet"
    if not is_sound(store, name):
        made = open_spectrum(store, FilterConfig(), columns=PLAN.names)
        before = rows_where(made, attempt=attempt - 1)
        plan = next_attempt(
            before, run.config.plan, fingerprint=run.fingerprint, base_seed=run.config.seed
        )
        store.write_table(name, plan)
    return store.read_table(name)


def generate(run: Run) -> list[GeneratorSigns]:
    """Makes every shard that is not committed, round by round, then verifies and closes the run.

    Returns the generators' last signs; none if nothing was made.
    """
    drop_damaged(run.store)
    plans: list[pa.Table] = []
    signs: list[GeneratorSigns] = []
    with ExitStack() as session:
        for attempt in range(run.config.plan.attempts):
            plan = round_plan(run, attempt)
            if attempt and not plan.num_rows:
                break
            plans.append(plan)
            committed_shards = committed_ids(run.store)
            todo = without_shards(plan, committed_shards)
            if not todo.num_rows:
                continue
            _log_round(run, attempt, plan, todo, fresh=not committed_shards)
            if not signs:  # Ray starts with the first round that has something to make
                needed = run.config.run.num_cpus
                session.enter_context(ray_session(num_cpus=needed, needs={}))
            signs = _make(run, todo)
    _close(run, plans)
    return signs


def _make(run: Run, todo: pa.Table) -> list[GeneratorSigns]:
    """Makes shards with as many generators and scorers as there is room and work for."""
    demand = crew(run.config, limit=len(todo["shard_id"].unique()))
    log.info("%s", demand.words("generator", "scorer"))
    signs = run_graph(run, todo, demand)
    note_rate(run, demand, signs)
    return signs


def _log_round(run: Run, attempt: int, plan: pa.Table, todo: pa.Table, *, fresh: bool) -> None:
    """Logs what of a round is there already, and what is left."""
    if not attempt and fresh:
        reused = run.store.read_table(REUSED_FILE).num_rows
        if reused:
            log.info(
                "%d of %d images were made by earlier runs and are taken over",
                reused,
                plan.num_rows,
            )
    left = todo.num_rows
    if left < plan.num_rows:
        there = plan.num_rows - left
        log.info("resuming: %d images are committed, %d are left", there, left)
    if attempt:
        attempts = run.config.plan.attempts
        log.info("attempt %d of %d: %d images fell short", attempt + 1, attempts, left)


def _close(run: Run, plans: list[pa.Table]) -> None:
    """Checks that every planned image is committed; writes the manifest unless it is there."""
    store = run.store
    everything = pa.concat_tables(plans)
    fold(store)
    check_planned(store, everything)
    drop_strays(store)
    shards = len(committed_ids(store))
    record = {"rows": everything.num_rows, "rounds": len(plans), "shards": shards}
    if not holds_values(store, MANIFEST, record):
        table = open_spectrum(store, run.config.filter, columns=[])
        counts = {str(lam): dict(count) for lam, count in count_verdicts(table).items()}
        store.write_json(MANIFEST, {**record, "verdicts_at_first": counts})
