"""What a run of phase 1 writes before its first image: all that it is made from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import yaml

from discl_ray.config import dump_config
from discl_ray.core.run_directory import CONFIG, PLAN_FILE
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.process.calls import AGAIN
from discl_ray.score.model_folder import scorer_fingerprint
from discl_ray.spectrum.made_with import FILE as MADE_WITH
from discl_ray.spectrum.made_with import MadeWith, installed, write_made_with
from discl_ray.spectrum.reuse import FILE as REUSED_FILE
from discl_ray.spectrum.reuse import REUSED, gids_by_file
from discl_ray.spectrum.samples import SAMPLES_AT
from discl_ray.synthesize.run import Run

log = logging.getLogger(__name__)

SOURCES = "sources.parquet"

RUNS = ("generate-", "preview-")
"""How the names of folders with images begin."""

REWRITTEN = "is cut short or garbled, and written again"


def lay_out(run: Run) -> Run:
    """Writes what a run is made from; the plan once and last, so that a planned run has the rest.

    The files are configuration, place of the samples, sources, images to take over, fingerprints,
    and plan. All follow from data and configuration, so a damaged one is written again.

    Returns the run. Raises DataError if there is nothing to make, IntegrityError if the directory
    holds another plan.
    """
    store, plan = run.store, run.plan
    planned = is_sound(store, PLAN_FILE)
    if planned:
        _check_plan(store, plan)
        planned = _holds(store, PLAN_FILE, plan)
    _write_sources(run)
    if not (planned and _is_mapping(store, CONFIG)):
        store.write(CONFIG, dump_config(run.config).encode())
    if not (planned and is_sound(store, REUSED_FILE)):
        store.write_table(REUSED_FILE, find_reusable(run))
    if not is_sound(store, MADE_WITH):
        scorer = scorer_fingerprint(run.config.scorer)
        made = MadeWith(generator=run.fingerprint, scorer=scorer, versions=installed())
        write_made_with(store, made)
    if not planned:
        store.write_table(PLAN_FILE, plan)
    return run


def _write_sources(run: Run) -> None:
    """Writes where the samples are, and the sources; moved data is the same, at other paths."""
    store = run.store
    place = {"directory": run.samples.store.name}
    placed = is_sound(store, SAMPLES_AT) and store.read_json(SAMPLES_AT) == place
    if not (placed and _holds(store, SOURCES, run.hard)):
        store.write_json(SAMPLES_AT, place)
        store.write_table(SOURCES, run.hard)


def find_reusable(run: Run) -> pa.Table:
    """REUSED: planned images that another run of this name has made.

    What is damaged there is left out, and made again here.
    """
    runs = run.store.parent
    wanted = set(run.plan["gid"].to_pylist())
    found: dict[str, tuple[str, str]] = {}
    for directory in runs.folders():
        if not directory.startswith(RUNS):
            continue
        for file, gids in gids_by_file(runs.within(directory)):
            found.update((gid, (directory, file)) for gid in gids if gid in wanted)
    rows = [
        {"gid": gid, "directory": directory, "file": file}
        for gid, (directory, file) in sorted(found.items())
    ]
    return pa.Table.from_pylist(rows, schema=REUSED)


def is_sound(store: Store, name: str) -> bool:
    """Whether a file is there and whole; logs it where it is not whole."""
    if not store.exists(name):
        return False
    sound = store.sound(name)
    if not sound:
        log.info("%s: %s", store.path(name), REWRITTEN)
    return sound


def holds_values(store: Store, name: str, values: Mapping[str, Any]) -> bool:
    """Whether a JSON file is there and holds some values, perhaps among others."""
    if not is_sound(store, name):
        return False
    content = store.read_json(name)
    return isinstance(content, dict) and {**content, **values} == content


def _check_plan(store: Store, plan: pa.Table) -> None:
    """Raises IntegrityError if the run was made by another plan."""
    stored = store.read_table(PLAN_FILE)
    if "gid" in stored.column_names and not stored["gid"].equals(plan["gid"]):
        raise IntegrityError(
            f"{store.path(PLAN_FILE)}: holds another plan than this data gives; delete it if it "
            f"was damaged and {AGAIN}, or name another run.name"
        )


def _holds(store: Store, name: str, table: pa.Table) -> bool:
    """Whether a file is there and holds a table; logs it where it holds another one.

    Columns that an earlier version wrote it without are not compared.
    """
    if not is_sound(store, name):
        return False
    stored = store.read_table(name)
    comparable = set(stored.column_names) <= set(table.column_names)
    if comparable and stored.equals(table.select(stored.column_names)):
        return True
    log.info("%s: %s", store.path(name), REWRITTEN)
    return False


def _is_mapping(store: Store, name: str) -> bool:
    """Whether a YAML file is there and holds a mapping."""
    try:
        return store.exists(name) and isinstance(yaml.safe_load(store.read(name)), dict)
    except (yaml.YAMLError, ValueError):
        return False
