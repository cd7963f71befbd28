# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""A run of phase 1 from configuration to plan: where it lies, and what is written before the first image is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa
import yaml

from discl_ray.cluster.checks import Check, refuse
from discl_ray.config import PHASE_1, Config, dump_config, part_hash
from discl_ray.core.run_directory import CONFIG, PLAN_FILE, run_store
from discl_ray.core.settings import identity
from discl_ray.core.storage import Store
from discl_ray.data import Samples, read_samples
from discl_ray.errors import ConfigError, IntegrityError
from discl_ray.generate.model_folder import check_steps, find_model, fingerprint
from discl_ray.plan.forecast import pick_sources, preview_plan
from discl_ray.plan.grid import make_plan
from discl_ray.plan.hardness import hard_samples, predictions_folder, read_predictions
from discl_ray.plan.prompts import Prompts, load_prompts
from discl_ray.process.calls import AGAIN
from discl_ray.score.model_folder import scorer_fingerprint
from discl_ray.spectrum.made_with import FILE as MADE_WITH
from discl_ray.spectrum.made_with import MadeWith, installed, write_made_with
from discl_ray.spectrum.reuse import FILE as REUSED_FILE
from discl_ray.spectrum.reuse import REUSED, gids_by_file
from discl_ray.spectrum.samples import SAMPLES_AT
from discl_ray.synthesize.checks import MODELS

SOURCES = "sources.parquet"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A generate run that has been planned: where it lies, its samples, sources and plan."""

    store: Store
    samples: Samples
    prompts: Prompts
    hard: pa.Table
    """SAMPLES rows of the sources, with bytes or a path."""
    plan: pa.Table
    class_prompts: tuple[str, ...]
    fingerprint: str
    """Of the generator."""


class Ready(NamedTuple):
    """A run that can be planned."""

    store: Store
    fingerprint: str
    """Of the generator."""
    samples: Samples
    prompts: Prompts


def prepare(config: Config, also: Sequence[tuple[str, Check]] = ()) -> Ready:
    """The run's store, the generator's fingerprint and the samples; first what the job refuses (`also` its own checks), then the data.

    Raises ModelError, SetupError, DataError, or ConfigError if the prompts' file or the class names cannot be used.
    """
    if config.spectrum.path:
        raise ConfigError(
            f"spectrum.path = '{config.spectrum.path}': names a spectrum to train on (make train, make tune); images are made by "
            "a configuration without it"
        )
    refuse(config, (*MODELS, *also))
    prompts = load_prompts(config.prompts)
    folder = find_model(config.generator.model, config.generator.revision, config.generator.variant)
    print_ = fingerprint(config.generator, folder, config.plan.num_steps)
    scorer = scorer_fingerprint(config.scorer)
    runs = run_store(config.run.root, config.run.name, "")
    samples = read_samples(config.data, config.seed, runs, num_cpus=config.run.num_cpus)
    prompts.check(samples.classes)
    before = [print_, scorer, samples.fingerprint, prompts.fingerprint]
    if config.hard.rule == "confidence":
        before.append(predictions_store(config, samples, prompts).name)
    hash8 = _hash8(config, *before)
    return Ready(
        run_store(config.run.root, config.run.name, f"generate-{hash8}"), print_, samples, prompts
    )


def predictions_store(config: Config, samples: Samples, prompts: Prompts) -> Store:
    """Where the predictions lie that hardness by confidence goes by."""
    folder = predictions_folder(
        config.hard,
        samples=samples.fingerprint,
        scorer=scorer_fingerprint(config.scorer),
        prompts=[prompts.filter(name) for name in samples.classes],
        classifier={**identity(config.train.start()), "seed": config.seed},
    )
    return run_store(config.run.root, config.run.name, folder)


def _hash8(config: Config, *before: str) -> str:
    """Names what phase 1 makes: its configuration, both models' contents and the samples'."""
    return part_hash(config, PHASE_1, *before)[:8]


def draft(
    config: Config, store: Store, generator_fingerprint: str, samples: Samples, prompts: Prompts
) -> Prepared:
    """Hard samples and plan of a run; writes nothing.

    Raises DataError if there is nothing to make.
    """
    by_confidence = config.hard.rule == "confidence"
    predictions = (
        read_predictions(predictions_store(config, samples, prompts)) if by_confidence else None
    )
    hard = samples.with_images(hard_samples(samples.table, config.hard, predictions))
    plan = make_plan(
        hard, config.plan, prompts, fingerprint=generator_fingerprint, base_seed=config.seed
    )
    return Prepared(
        store=store,
        samples=samples,
        prompts=prompts,
        hard=hard,
        plan=plan,
        class_prompts=tuple(prompts.filter(name) for name in samples.classes),
        fingerprint=generator_fingerprint,
    )


def draft_preview(full: Prepared, config: Config) -> tuple[Prepared, Config]:
    """A small run out of the drafted full one, in a directory of its own, and the configuration it is made with; writes nothing.

    Raises ConfigError if its levels do not fit the plan's steps, or ModelError if they do not fit the model's.
    """
    sources = pick_sources(full.hard, config.preview.sources)
    parts = {
        "plan": preview_plan(config.plan, config.preview),
        "hard": config.hard.model_copy(update={"probe_sources": 0}),
    }
    small = config.model_copy(update=parts)
    generator = config.generator
    folder = find_model(generator.model, generator.revision, generator.variant)
    check_steps(generator, folder, small.plan.num_steps, small.plan.levels)
    plan = make_plan(
        sources, small.plan, full.prompts, fingerprint=full.fingerprint, base_seed=small.seed
    )
    before = (
        full.fingerprint,
        scorer_fingerprint(config.scorer),
        full.samples.fingerprint,
        full.prompts.fingerprint,
    )
    hash8 = _hash8(small, *before, str(config.preview.sources))  # the grid is in small.plan
    store = run_store(config.run.root, config.run.name, f"preview-{hash8}")
    return replace(full, store=store, hard=sources, plan=plan), small


def write_layout(prepared: Prepared, config: Config) -> None:
    """Writes what a run is made from: configuration, where its samples lie, sources, and last the plan. The plan is written once.

    All of it follows from the data and the configuration, so what has been damaged is written again.

    Raises IntegrityError if the directory holds another plan.
    """
    store, plan = prepared.store, prepared.plan
    planned = is_sound(store, PLAN_FILE)
    if planned:
        _check_plan(store, plan)
        planned = _holds(store, PLAN_FILE, plan)
    place = {"directory": prepared.samples.store.name}
    placed = (
        is_sound(store, SAMPLES_AT) and store.read_json(SAMPLES_AT) == place
    )  # moved data is the same, at other paths
    if not (placed and _holds(store, SOURCES, prepared.hard)):
        store.write_json(SAMPLES_AT, place)
        store.write_table(SOURCES, prepared.hard)
    if not (planned and _is_mapping(store, CONFIG)):
        store.write(CONFIG, dump_config(config).encode())
    if not (planned and is_sound(store, REUSED_FILE)):
        store.write_table(REUSED_FILE, find_reusable(prepared))
    if not is_sound(store, MADE_WITH):
        scorer = scorer_fingerprint(config.scorer)
        write_made_with(
            store, MadeWith(generator=prepared.fingerprint, scorer=scorer, versions=installed())
        )
    if not planned:
        store.write_table(PLAN_FILE, plan)


def is_sound(store: Store, name: str) -> bool:
    """Whether a file is there and whole; says so where it is not whole."""
    if not store.exists(name):
        return False
    sound = store.sound(name)
    if not sound:
        print(f"  {store.path(name)}: {REWRITTEN}", flush=True)
    return sound


def _is_mapping(store: Store, name: str) -> bool:
    """Whether a file of YAML is there and says something."""
    try:
        return store.exists(name) and isinstance(yaml.safe_load(store.read(name)), dict)
    except (yaml.YAMLError, ValueError):
        return False


def find_reusable(prepared: Prepared) -> pa.Table:
    """REUSED: planned images that another run of this name has made; what is damaged there is left out, and made again here."""
    runs = Store(prepared.store.filesystem, prepared.store.base.rsplit("/", 1)[0])
    wanted, found = set(prepared.plan["gid"].to_pylist()), {}
    for directory in runs.folders():
        if not directory.startswith(("generate-", "preview-")):
            continue
        for file, gids in gids_by_file(runs.within(directory)):
            found.update((gid, (directory, file)) for gid in gids if gid in wanted)
    rows = [
        {"gid": gid, "directory": directory, "file": file}
        for gid, (directory, file) in sorted(found.items())
    ]
    return pa.Table.from_pylist(rows, schema=REUSED)


def lay_out(
    config: Config, store: Store, generator_fingerprint: str, samples: Samples, prompts: Prompts
) -> Prepared:
    """Drafts a run and writes its layout."""
    prepared = draft(config, store, generator_fingerprint, samples, prompts)
    write_layout(prepared, config)
    return prepared


REWRITTEN = "is cut short or garbled, and written again"


def _check_plan(store: Store, plan: pa.Table) -> None:
    """Raises IntegrityError if the run was made by another plan."""
    there = store.read_table(PLAN_FILE)
    if "gid" in there.column_names and not there["gid"].equals(plan["gid"]):
        raise IntegrityError(
            f"{store.path(PLAN_FILE)}: holds another plan than this data gives; delete it if it was damaged and "
            f"{AGAIN}, or name another run.name"
        )


def _holds(store: Store, name: str, table: pa.Table) -> bool:
    """Whether a file is there and holds a table, columns that it was written without left out; says so where it does not."""
    if not is_sound(store, name):
        return False
    there = store.read_table(name)
    known = set(there.column_names) <= set(table.column_names)
    if known and there.equals(table.select(there.column_names)):
        return True
    print(f"  {store.path(name)}: {REWRITTEN}", flush=True)
    return False


def says(store: Store, name: str, known: Mapping[str, Any]) -> bool:
    """Whether a file of JSON is there and says what is known, maybe among other things."""
    said = store.read_json(name) if is_sound(store, name) else None
    return isinstance(said, dict) and {**said, **known} == said
