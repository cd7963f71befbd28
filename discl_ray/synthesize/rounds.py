"""Rounds of attempts: the first is the plan, the next is what fell short in the one before.

Rerunning is resuming: shards with a commit record are left out, the others are made whole, and
their bytes do not depend on who makes them or when. When every shard is committed, nothing is
started at all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack

import pyarrow as pa

from discl_ray.cluster.demand import Demand
from discl_ray.cluster.heartbeat import GeneratorSigns
from discl_ray.cluster.session import ray_session
from discl_ray.config import Config
from discl_ray.core.columns import places_in
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.schema import SHARDS
from discl_ray.core.storage import Store
from discl_ray.plan.grid import next_attempt
from discl_ray.plan.shards import shards_of
from discl_ray.spectrum.commit import STORED_BY
from discl_ray.spectrum.files import read_ledger
from discl_ray.spectrum.fold import fold
from discl_ray.spectrum.read import count_verdicts, open_spectrum, read_rows
from discl_ray.spectrum.records import committed_ids
from discl_ray.spectrum.reuse import FILE as REUSED_FILE
from discl_ray.spectrum.verify import check_planned, drop_damaged, drop_strays
from discl_ray.synthesize.checks import crew
from discl_ray.synthesize.graph import run_graph
from discl_ray.synthesize.planned import (
    Planned,
    open_planned,
    plan_part,
    read_planned,
    shards_file,
    whole_file,
    write_part,
)
from discl_ray.synthesize.rates import note_rate
from discl_ray.synthesize.run import Run, prepare
from discl_ray.synthesize.written import holds_values

log = logging.getLogger(__name__)


SCORES_OF = ["gid", "status", "error", "text_sim"]
"""Columns of a spectrum that decide what is tried again."""


def prepare_to_make(config: Config) -> tuple[Run, Demand | None]:
    """The run of a configuration, and its generators and scorers; None if nothing is left to make.

    Raises what `prepare` does, and SetupError if generators and scorers have no room.
    """
    run = prepare(config)
    # a finished run needs no room: any machine can look at it
    finished = run.store.exists(MANIFEST)
    return run, None if finished else crew(config)


def round_plan(run: Run, attempt: int) -> Planned:
    """The plan of one round of attempts, written once.

    The first is what `lay_out` wrote, the next what fell short in the committed one before.
    """
    if not attempt:
        return read_planned(run.store)
    planned = open_planned(run.store, attempt)
    if planned is not None:
        return planned
    before = round_plan(run, attempt - 1)
    return Planned(run.store, _write_next(run, before, attempt))


def _write_next(run: Run, before: Planned, attempt: int) -> pa.Table:
    """Writes the plan of the next round, part by part, and last its SHARDS, which it returns."""
    store = run.store
    whole = whole_file(attempt)
    old = store.exists(whole)  # damaged: an earlier version wrote it
    shards = [SHARDS.empty_table()]
    for number, (part, rows) in enumerate(_with_scores(before)):
        file = whole if old else plan_part(number, attempt)
        # Cut again as it was then, in the order of a spectrum.
        ordered = rows.sort_by(STORED_BY) if old else rows
        again = next_attempt(
            ordered, run.config.plan, fingerprint=run.fingerprint, base_seed=run.config.seed
        )
        if again.num_rows:
            write_part(store, file, again)
            shards.append(shards_of(again, file, _sources_of(store, part)))
    table = pa.concat_tables(shards)
    if not old:
        store.write_table(shards_file(attempt), table)
    return table


def _with_scores(planned: Planned) -> Iterator[tuple[pa.Table, pa.Table]]:
    """SHARDS and PLAN of each part of a committed round, PLAN with SCORES_OF."""
    store = planned.store
    made = read_rows(store, SCORES_OF, read_ledger(store))
    places = places_in(planned.gids()["gid"], made["gid"])
    first = 0
    for part in planned.parts():
        rows = planned.read_part(part)
        of_part = places.slice(first, rows.num_rows)
        for name in SCORES_OF[1:]:
            rows = rows.append_column(name, made[name].take(of_part))
        yield part, rows
        first += rows.num_rows


def _sources_of(store: Store, part: pa.Table) -> tuple[str, pa.ChunkedArray] | None:
    """The file of a part's real images and their ids; None in a run of an earlier version."""
    file = part["sources"][0].as_py()
    if file is None:
        return None
    return file, store.read_table(file, ["sample_id"])["sample_id"]


def generate(run: Run) -> list[GeneratorSigns]:
    """Makes every shard that is not committed, round by round, then verifies and closes the run.

    Returns the generators' last signs; none if nothing was made.
    """
    drop_damaged(run.store)
    plans: list[Planned] = []
    signs: list[GeneratorSigns] = []
    with ExitStack() as session:
        for attempt in range(run.config.plan.attempts):
            plan = round_plan(run, attempt)
            if attempt and not plan.rows:
                break
            plans.append(plan)
            committed_shards = committed_ids(run.store)
            todo = plan.without(committed_shards)
            if not todo.rows:
                continue
            _log_round(run, attempt, plan, todo, fresh=not committed_shards)
            if not signs:  # Ray starts with the first round that has something to make
                needed = run.config.run.num_cpus
                session.enter_context(ray_session(num_cpus=needed, needs={}))
            signs = _make(run, todo)
    _close(run, plans)
    return signs


def _make(run: Run, todo: Planned) -> list[GeneratorSigns]:
    """Makes shards with as many generators and scorers as there is room and work for."""
    demand = crew(run.config, limit=todo.shards.num_rows)
    log.info("%s", demand.words("generator", "scorer"))
    signs = run_graph(run, todo, demand)
    note_rate(run, demand, signs)
    return signs


def _log_round(run: Run, attempt: int, plan: Planned, todo: Planned, *, fresh: bool) -> None:
    """Logs what of a round is there already, and what is left."""
    if not attempt and fresh:
        reused = run.store.read_table(REUSED_FILE).num_rows
        if reused:
            log.info(
                "%d of %d images were made by earlier runs and are taken over", reused, plan.rows
            )
    left = todo.rows
    if left < plan.rows:
        there = plan.rows - left
        log.info("resuming: %d images are committed, %d are left", there, left)
    if attempt:
        attempts = run.config.plan.attempts
        log.info("attempt %d of %d: %d images fell short", attempt + 1, attempts, left)


def _close(run: Run, plans: list[Planned]) -> None:
    """Checks that every planned image is committed; writes the manifest unless it is there."""
    store = run.store
    everything = pa.concat_tables([plan.gids() for plan in plans])
    fold(store)
    check_planned(store, everything)
    drop_strays(store)
    shards = len(committed_ids(store))
    record = {"rows": everything.num_rows, "rounds": len(plans), "shards": shards}
    if not holds_values(store, MANIFEST, record):
        table = open_spectrum(store, run.config.filter, columns=[])
        counts = {str(lam): dict(count) for lam, count in count_verdicts(table).items()}
        store.write_json(MANIFEST, {**record, "verdicts_at_first": counts})
