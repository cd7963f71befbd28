"""What a job that makes images, or needs their models, refuses before it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from discl_ray.cluster.checks import Check
from discl_ray.cluster.demand import UNBOUNDED, WHOLE, Demand, Stage, demand
from discl_ray.cluster.inventory import present
from discl_ray.config import Config
from discl_ray.errors import ModelError
from discl_ray.generate.model_folder import (
    PUBLISHED_GB,
    check_generator,
    find_model,
    scheduler_notes,
    weight_bytes,
)
from discl_ray.plan.prompts import load_prompts
from discl_ray.score.model_folder import check_scorer, scorer_warnings

PROCESS_BYTES = 0.7e9
"""Memory of a worker process beside its model's weights: PyTorch and diffusers, and what a small UNet works on.

Measured during `make generate ARGS="plan.replicas=6 generator.actors=1"` by `grep -E 'Rss|Private' /proc/PID/smaps_rollup` for the PID
of ray::MapWorker(MapBatches(GenerateStage)): .65 GB private at most, 1.11 resident; ScoreStage: .60 and 1.05. What is resident and
not private are the libraries' pages, which all processes of a node share.
"""


def check_prompts(config: Config) -> str:
    """The file of scene descriptions, if there is one."""
    load_prompts(config.prompts)
    return config.prompts.scenes or f"'{config.prompts.filter}'"


def check_plumbing(config: Config) -> str:
    """Whether the embedded generator is let loose on what it does not know, and was allowed to be."""
    if config.plumbing_test and not config.generator.allow_embedded:
        raise ModelError(
            f"generator.model = embedded knows only digits, data.name = {config.data.name}: name a generator, "
            "or test the plumbing with generator.allow_embedded=true"
        )
    return (
        "a test of the plumbing: the images mean nothing"
        if config.plumbing_test
        else "fits the data set"
    )


def check_diffusion(config: Config) -> str:
    """Whether the diffusion model is here, complete and fit for the plan's steps; what its sampler does not follow."""
    folder = check_generator(config.generator, config.plan.num_steps, config.plan.levels)
    return "\n".join([config.generator.model, *scheduler_notes(config.generator, folder)])


def check_clip(config: Config) -> str:
    """Whether the CLIP model that scores is here and complete."""
    check_scorer(config.scorer)
    return "\n".join([config.scorer.model, *scorer_warnings(config.scorer)])


MODELS: tuple[tuple[str, Check], ...] = (
    ("prompts", check_prompts),
    ("plumbing", check_plumbing),
    ("generator", check_diffusion),
    ("scorer", check_clip),
)
"""Of every job that makes a spectrum or needs its name; in the order in which a later one needs an earlier one."""


def stages(config: Config) -> tuple[Stage, Stage]:
    """Generators and scorers as the configuration asks for them."""
    generator = config.generator
    folder = find_model(generator.model, generator.revision, generator.variant)
    return (
        Stage(
            name="generator",
            actors=generator.actors,
            most=generator.max_actors,
            num_gpus=generator.num_gpus,
            share=0.8,
            memory=PROCESS_BYTES + weight_bytes(generator, folder),
        ),
        scoring(config),
    )


def scoring(config: Config) -> Stage:
    """Scorers as the configuration asks for them."""
    scorer = config.scorer
    return Stage(
        name="scorer",
        actors=scorer.actors,
        most=scorer.max_actors,
        num_gpus=scorer.num_gpus,
        share=0.2,
        memory=PROCESS_BYTES,
    )


def crew(config: Config, limit: int | None = None) -> Demand:
    """The generators and scorers of a job on the cluster there is; at most `limit` of those whose number is left open.

    Raises SetupError if what is asked for does not fit.
    """
    return demand(stages(config), present(config.run), limit)


def judging_crew(config: Config) -> Demand:
    """The scorers of a job that has nothing else to do: one a GPU, or what the CPUs have room for.

    Raises SetupError if what is asked for does not fit.
    """
    stage = scoring(config)
    one_each = replace(
        stage, most=min(stage.most or UNBOUNDED * WHOLE, max(1, present(config.run).gpus))
    )
    return demand([one_each], present(config.run))


def check_crew(config: Config) -> str:
    """Whether generators and scorers have room."""
    return crew(config).words("generator", "scorer")


def weights_gb(config: Config) -> float:
    """What the generator's weights take on a card; of a published model also before it is downloaded."""
    generator = config.generator
    if generator.model in PUBLISHED_GB and not Path(generator.model).is_dir():
        return PUBLISHED_GB[generator.model]
    return (
        weight_bytes(generator, find_model(generator.model, generator.revision, generator.variant))
        / 1e9
    )


MAKING: tuple[tuple[str, Check], ...] = (("generating", check_crew),)
"""Of a job that makes images."""
