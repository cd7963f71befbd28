"""A run of phase 1 as a value: its configuration, its folder, and what it is planned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa

from discl_ray.cluster.checks import Check, refuse
from discl_ray.config import PHASE_1, Config, part_hash
from discl_ray.core.run_directory import run_store
from discl_ray.core.settings import identity
from discl_ray.core.storage import Store
from discl_ray.data import Samples, read_samples
from discl_ray.errors import ConfigError
from discl_ray.generate.model_checks import check_steps, fingerprint
from discl_ray.generate.model_folder import find_model
from discl_ray.plan.forecast import pick_sources, preview_plan
from discl_ray.plan.grid import Grid, plan_of_blocks
from discl_ray.plan.guesses import predictions_folder, read_predictions
from discl_ray.plan.hardness import hard_samples
from discl_ray.plan.prompts import Prompts, load_prompts
from discl_ray.score.model_folder import scorer_fingerprint
from discl_ray.synthesize.checks import MODELS


@dataclass(frozen=True, kw_only=True)
class Run:
    """A generate or preview run. Sources and plan are computed when first asked for."""

    config: Config
    store: Store
    """Its folder."""
    fingerprint: str
    """Of the generator."""
    samples: Samples
    prompts: Prompts
    picked: pa.Table | None = None
    """SAMPLES rows of the sources of a preview; None: those that hardness picks."""

    @cached_property
    def hard(self) -> pa.Table:
        """SAMPLES rows of the sources; raises DataError if there are none.

        Their images are paths, or empty where they are not files; see `samples.with_images`.
        """
        if self.picked is not None:
            return self.picked
        predictions = None
        if self.config.hard.rule == "confidence":
            predictions = read_predictions(
                predictions_store(self.config, self.samples, self.prompts)
            )
        return hard_samples(self.samples.table, self.config.hard, predictions)

    @property
    def grid(self) -> Grid:
        """What is made of every source."""
        return Grid(
            config=self.config.plan,
            prompts=self.prompts,
            fingerprint=self.fingerprint,
            base_seed=self.config.seed,
        )

    @cached_property
    def plan(self) -> pa.Table:
        """PLAN: one row per image to make; raises DataError if there is nothing to make.

        The whole plan in memory, for whoever asks. A job works on its parts, see `planned`.
        """
        return plan_of_blocks(self.hard, self.grid)

    @property
    def class_prompts(self) -> tuple[str, ...]:
        """The prompts that images are scored against, by label."""
        return tuple(self.prompts.filter(name) for name in self.samples.classes)


def prepare(config: Config, also: Sequence[tuple[str, Check]] = ()) -> Run:
    """Checks models and prompts (and `also`, the job's own checks), reads the data, names the run.

    Raises ModelError, SetupError, DataError, or ConfigError if the prompts' file or the class names
    cannot be used.
    """
    if config.spectrum.path:
        raise ConfigError(
            f"spectrum.path = '{config.spectrum.path}': names a spectrum to train on "
            "(make train, make tune); images are made by a configuration without it"
        )
    refuse(config, (*MODELS, *also))
    prompts = load_prompts(config.prompts)
    generator = config.generator
    folder = find_model(generator.model, generator.revision, generator.variant)
    weights = fingerprint(generator, folder, config.plan.num_steps)
    runs = run_store(config.run.root, config.run.name, "")
    samples = read_samples(config.data, config.seed, runs, num_cpus=config.run.num_cpus)
    prompts.check(samples.classes)
    before = [weights, scorer_fingerprint(config.scorer), samples.fingerprint, prompts.fingerprint]
    if config.hard.rule == "confidence":
        before.append(predictions_store(config, samples, prompts).name)
    store = run_store(config.run.root, config.run.name, f"generate-{_hash8(config, *before)}")
    return Run(config=config, store=store, fingerprint=weights, samples=samples, prompts=prompts)


def predictions_store(config: Config, samples: Samples, prompts: Prompts) -> Store:
    """The folder of the predictions that hardness by confidence uses."""
    folder = predictions_folder(
        config.hard,
        samples=samples.fingerprint,
        scorer=scorer_fingerprint(config.scorer),
        prompts=[prompts.filter(name) for name in samples.classes],
        classifier={**identity(config.train.start()), "seed": config.seed},
    )
    return run_store(config.run.root, config.run.name, folder)


def preview_of(full: Run) -> Run:
    """A small run with some of the full one's sources, in a directory of its own.

    Raises ConfigError if its levels do not fit the plan's steps, or ModelError if they do not fit
    the model's.
    """
    config = full.config
    picked = pick_sources(full.hard, config.preview.sources)  # first: without any, say only that
    parts = {
        "plan": preview_plan(config.plan, config.preview),
        "hard": config.hard.model_copy(update={"probe_sources": 0}),
    }
    small = config.model_copy(update=parts)
    generator = config.generator
    folder = find_model(generator.model, generator.revision, generator.variant)
    check_steps(generator, folder, small.plan.num_steps, small.plan.levels)
    hash8 = _hash8(
        small,
        full.fingerprint,
        scorer_fingerprint(config.scorer),
        full.samples.fingerprint,
        full.prompts.fingerprint,
        str(config.preview.sources),  # the other keys of preview are in small.plan
    )
    store = run_store(config.run.root, config.run.name, f"preview-{hash8}")
    return replace(full, config=small, store=store, picked=picked)


def _hash8(config: Config, *before: str) -> str:
    """The hash in a run's name: its configuration, both models' contents and the samples'."""
    return part_hash(config, PHASE_1, *before)[:8]
