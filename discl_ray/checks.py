"""What a job refuses before it begins, one check after the other; the doctor runs the same ones and reports each.

A check returns what it found in a sentence, or raises a DisclError that names the key and the remedy. It reads a configuration and
looks at this machine; no image is opened, no model loaded, nothing written that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from discl_ray.config import Config
from discl_ray.errors import ModelError
from discl_ray.generate.folder import check_generator, scheduler_notes
from discl_ray.prompts import load_prompts
from discl_ray.ray_start import check_ray_start, set_environment
from discl_ray.run import check_root, run_store
from discl_ray.score.folder import check_scorer, scorer_warnings

Check = Callable[[Config], str]


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
    return "a test of the plumbing: the images mean nothing" if config.plumbing_test else "fits the data set"


def check_diffusion(config: Config) -> str:
    """Whether the diffusion model is here, complete and fit for the plan's steps; what its sampler does not follow."""
    folder = check_generator(config.generator, config.plan.num_steps, config.plan.levels)
    return "\n".join([config.generator.model, *scheduler_notes(config.generator, folder)])


def check_clip(config: Config) -> str:
    """Whether the CLIP model that scores is here and complete."""
    check_scorer(config.scorer)
    return "\n".join([config.scorer.model, *scorer_warnings(config.scorer)])


def check_run_root(config: Config) -> str:
    """Whether runs can be written where they are to lie."""
    run_store(config.run.root, config.run.name, "")
    check_root(config.run.root)
    return f"{config.run.root}: can be written"


def check_ray(_: Config) -> str:
    """Whether Ray can be started or joined."""
    set_environment()
    return check_ray_start()


PLACES: tuple[tuple[str, Check], ...] = (
    ("run root", check_run_root),
    ("Ray", check_ray),
)
"""Of every job, before anything else."""

MODELS: tuple[tuple[str, Check], ...] = (
    ("prompts", check_prompts),
    ("plumbing", check_plumbing),
    ("generator", check_diffusion),
    ("scorer", check_clip),
)
"""Of every job that makes a spectrum or needs its name; in the order in which a later one needs an earlier one."""


def refuse(config: Config, checks: Sequence[tuple[str, Check]]) -> None:
    """Runs the checks; raises the DisclError of the first that finds something wrong."""
    for _, check in checks:
        check(config)
