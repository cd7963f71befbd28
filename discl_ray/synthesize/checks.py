"""What is checked before a job that makes images, or needs their models, begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from discl_ray.cluster.checks import Check
from discl_ray.cluster.demand import UNBOUNDED, WHOLE, Demand, Stage, demand
from discl_ray.cluster.inventory import present
from discl_ray.config import Config
from discl_ray.errors import ModelError
from discl_ray.generate.model_checks import check_generator
from discl_ray.generate.model_folder import PUBLISHED_GB, find_model, weight_bytes
from discl_ray.generate.model_settings import scheduler_notes
from discl_ray.plan.prompts import load_prompts
from discl_ray.score.model_folder import check_scorer, scorer_warnings

PROCESS_BYTES = 0.7e9
"""Memory of a worker process beside its model's weights: PyTorch, diffusers, and a small UNet's
activations.

Measured by `grep -E 'Rss|Private' /proc/PID/smaps_rollup` during `make generate
ARGS="plan.replicas=6 generator.actors=1"`. For ray::MapWorker(MapBatches(GenerateStage)): at most
0.65 GB private, 1.11 GB resident; for ScoreStage 0.60 and 1.05. Resident pages that are not
private are the libraries', which all processes of a node share.
"""


def check_prompts(config: Config) -> str:
    """The file of scene descriptions, if there is one."""
    load_prompts(config.prompts)
    return config.prompts.scenes or f"'{config.prompts.filter}'"


def check_plumbing(config: Config) -> str:
    """Raises ModelError if the digits-only generator is to make other images and may not."""
    if config.plumbing_test and not config.generator.allow_embedded:
        raise ModelError(
            f"generator.model = embedded knows only digits, data.name = {config.data.name}: "
            "name a generator, or test the plumbing with generator.allow_embedded=true"
        )
    if config.plumbing_test:
        return "a test of the plumbing: the images mean nothing"
    return "fits the data set"


def check_diffusion(config: Config) -> str:
    """Checks that the diffusion model is complete and fits the plan's steps; scheduler notes."""
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
"""Checks of every job that makes a spectrum or needs its name; later ones rely on earlier ones."""


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
    """Generators and scorers of a job on the present cluster; at most `limit` where it is `auto`.

    Raises SetupError if what is asked for does not fit.
    """
    return demand(stages(config), present(config.run), limit)


def judging_crew(config: Config) -> Demand:
    """The scorers of a job that has nothing else to do: one a GPU, or what the CPUs have room for.

    Raises SetupError if what is asked for does not fit.
    """
    stage = scoring(config)
    cluster = present(config.run)
    one_each = min(stage.most or UNBOUNDED * WHOLE, max(1, cluster.gpus))
    return demand([replace(stage, most=one_each)], cluster)


def check_crew(config: Config) -> str:
    """Whether generators and scorers have room."""
    return crew(config).words("generator", "scorer")


def weights_gb(config: Config) -> float:
    """Size of the generator's weights in GB; of a published model also before it is downloaded."""
    generator = config.generator
    if generator.model in PUBLISHED_GB and not Path(generator.model).is_dir():
        return PUBLISHED_GB[generator.model]
    folder = find_model(generator.model, generator.revision, generator.variant)
    return weight_bytes(generator, folder) / 1e9


MAKING: tuple[tuple[str, Check], ...] = (("generating", check_crew),)
"""Checks of a job that makes images."""
