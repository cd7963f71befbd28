"""Runs that an earlier version laid out: plan and sources in one file each, which they keep."""

from __future__ import annotations

from discl_ray.core.run_directory import PLAN_FILE, SOURCES_FILE
from discl_ray.errors import IntegrityError
from discl_ray.plan.grid import plan_of_sources
from discl_ray.process.calls import AGAIN
from discl_ray.synthesize.run import Run
from discl_ray.synthesize.written import holds, holds_samples, is_sound


def check_whole_plan(run: Run) -> bool:
    """Whether the plan is whole; raises IntegrityError if it is another one than the data gives."""
    store = run.store
    if not is_sound(store, PLAN_FILE):
        return False
    # Cut as it was then, into shards that no block divides.
    plan = plan_of_sources(run.hard, run.grid)
    stored = store.read_table(PLAN_FILE)
    if "gid" in stored.column_names and not stored["gid"].equals(plan["gid"]):
        raise IntegrityError(
            f"{store.location(PLAN_FILE)}: holds another plan than this data gives; "
            f"delete it if it was damaged and {AGAIN}, or name another run.name"
        )
    return holds(store, PLAN_FILE, plan)


def write_whole_sources(run: Run) -> None:
    """Writes the sources, unless they are there; moved data is the same, at other paths."""
    store = run.store
    if is_sound(store, SOURCES_FILE) and holds_samples(store, SOURCES_FILE, run.hard):
        return
    store.write_table(SOURCES_FILE, run.samples.with_images(run.hard))


def write_whole_plan(run: Run) -> None:
    """Writes the plan."""
    run.store.write_table(PLAN_FILE, plan_of_sources(run.hard, run.grid))
