# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""Rounds of attempts: the first is the plan, the next is what fell short in the one before.

Rerunning is resuming: shards with a commit record are left out, the others are made whole, and their bytes are the same whoever
makes them and whenever. When every shard is committed, nothing is started at all.
"""

from __future__ import annotations

from contextlib import ExitStack

import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.cluster.heartbeat import GeneratorSigns
from discl_ray.cluster.session import ray_session
from discl_ray.config import Config
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.schema import PLAN
from discl_ray.plan.grid import next_attempt, without_shards
from discl_ray.spectrum.commit import committed, drop_damaged, drop_strays, verify
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.read import count_verdicts, open_spectrum
from discl_ray.spectrum.reuse import FILE as REUSED_FILE
from discl_ray.synthesize.checks import crew
from discl_ray.synthesize.graph import run_graph, staffed
from discl_ray.synthesize.layout import Prepared, is_sound, says
from discl_ray.synthesize.rates import note_rate


def round_plan(prepared: Prepared, config: Config, attempt: int) -> pa.Table:
    """The plan of one round of attempts: the first is the plan, the next what failed in the committed one before. Written once."""
    if attempt == 0:
        return prepared.plan
    store, name = prepared.store, f"plan-{attempt}.parquet"
    if not is_sound(store, name):
        made = open_spectrum(store, FilterConfig(), columns=PLAN.names)
        before = made.filter(pc.equal(made["attempt"], attempt - 1))
        plan = next_attempt(
            before, config.plan, fingerprint=prepared.fingerprint, base_seed=config.seed
        )
        store.write_table(name, plan)
    return store.read_table(name)


def generate(prepared: Prepared, config: Config) -> list[GeneratorSigns]:
    """Makes, scores and commits every shard that is not committed yet, round by round, then verifies and closes the run.

    Returns the generators' last signs; none if nothing was made.
    """
    store, plans, signs = prepared.store, [prepared.plan], []
    whole = drop_damaged(store)
    with ExitStack() as session:
        for attempt in range(config.plan.attempts):
            plan = round_plan(prepared, config, attempt)
            if not plan.num_rows:
                break
            plans += [plan] if attempt else []
            done = set(committed(store))
            todo = without_shards(plan, done)
            if not todo.num_rows:
                continue
            if not attempt and not done and (reused := store.read_table(REUSED_FILE).num_rows):
                print(
                    f"  {reused} of {plan.num_rows} images were made by earlier runs and are taken over"
                )
            if todo.num_rows < plan.num_rows:
                print(
                    f"  resuming: {plan.num_rows - todo.num_rows} images are committed, {todo.num_rows} are left"
                )
            if attempt:
                print(
                    f"  attempt {attempt + 1} of {config.plan.attempts}: {todo.num_rows} images fell short"
                )
            if not signs:
                session.enter_context(ray_session(num_cpus=config.run.num_cpus, needs={}))
            hands = crew(config, limit=len(todo["shard_id"].unique()))
            print(f"  {hands.words('generator', 'scorer')}", flush=True)
            signs = run_graph(prepared, todo, staffed(config, hands), hands)
            note_rate(prepared, config, hands, signs)
    everything = pa.concat_tables(plans)
    verify(store, everything, () if signs else whole)
    drop_strays(store)
    record = {"rows": everything.num_rows, "rounds": len(plans), "shards": len(committed(store))}
    if not says(store, MANIFEST, record):
        table = open_spectrum(store, config.filter, columns=[])
        counts = {str(lam): dict(count) for lam, count in count_verdicts(table).items()}
        store.write_json(MANIFEST, {**record, "verdicts_at_first": counts})
    return signs
