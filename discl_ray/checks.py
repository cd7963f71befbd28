"""What a job refuses before it begins, one check after the other; the doctor runs the same ones and reports each.

A check returns what it found in a sentence, or raises a DisclError that names the key and the remedy. It reads a configuration and
looks at this machine; no image is opened, no model loaded, nothing written that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from discl_ray.cluster import present
from discl_ray.config import Config
from discl_ray.demand import CARDS, UNBOUNDED, WHOLE, Demand, Stage, Workers, demand, workers
from discl_ray.errors import ModelError, SetupError
from discl_ray.generate.config import FALLBACK
from discl_ray.generate.folder import PUBLISHED_GB, check_generator, find_model, scheduler_notes, weight_bytes
from discl_ray.prompts import load_prompts
from discl_ray.ray_start import check_ray_start, set_environment
from discl_ray.run import check_root, run_store
from discl_ray.score.folder import check_scorer, scorer_warnings

Check = Callable[[Config], str]

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
        name="scorer", actors=scorer.actors, most=scorer.max_actors, num_gpus=scorer.num_gpus, share=0.2, memory=PROCESS_BYTES
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
    one_each = replace(stage, most=min(stage.most or UNBOUNDED * WHOLE, max(1, present(config.run).gpus)))
    return demand([one_each], present(config.run))


def check_crew(config: Config) -> str:
    """Whether generators and scorers have room."""
    return crew(config).words("generator", "scorer")


def weights_gb(config: Config) -> float:
    """What the generator's weights take on a card; of a published model also before it is downloaded."""
    generator = config.generator
    if generator.model in PUBLISHED_GB and not Path(generator.model).is_dir():
        return PUBLISHED_GB[generator.model]
    return weight_bytes(generator, find_model(generator.model, generator.revision, generator.variant)) / 1e9


def cards_of(config: Config) -> dict[str, float]:
    """Kinds of GPUs of the cluster that are known, with the gigabytes they have at least."""
    return {name: CARDS[name].gigabytes for name in present(config.run).cards if name in CARDS}


def settled(config: Config) -> tuple[Config, list[str]]:
    """The configuration with the precision that the cluster's cards can compute in, and what was changed, in sentences.

    Precision is part of what an image is: it is decided here, before anything is named by it, and not in a worker. The VAE goes to
    float32, as some overflow in float16. Raises SetupError if some cards can and others cannot, or for training in bfloat16.
    """
    generator, train = config.generator, config.train
    asked = [name for name in FALLBACK if getattr(generator, name) == "bfloat16"]
    making, learning = bool(asked) and generator.num_gpus != 0, train.precision == "bf16" and train.use_gpu is not False
    if not (making or learning):
        return config, []
    cards = [name for name in present(config.run).cards if name in CARDS]
    old = [name for name in cards if not CARDS[name].bf16]
    if not old:
        return config, []
    told = f"{', '.join(old)} computes in no bfloat16"
    values = {name: FALLBACK[name] for name in asked}
    keys = " ".join(f"generator.{name}={value}" for name, value in values.items())
    if making and len(old) < len(cards):
        raise SetupError(f"{told}, and other cards of the cluster do: images would differ; set {keys}, which all can")
    if learning:
        raise SetupError(f"train.precision = bf16: {told}; set train.precision=fp32")
    sentence = (
        f"{told}: images are made with {keys}; say so too wherever this spectrum is to be found from a machine with other cards"
    )
    return config.model_copy(update={"generator": generator.model_copy(update=values)}), [sentence]


def training(config: Config, begun: Workers | None = None) -> Workers:
    """The workers of a training run on the cluster there is; `begun` are those that it was begun with.

    Raises SetupError if what is asked for does not fit.
    """
    return workers(config.train.workers, config.train.use_gpu, config.train.batch, present(config.run), begun)


def each_alone(config: Config, number: int = 1) -> Config:
    """The configuration of a job that trains many runs at once, each by `number` workers: with the workers and the devices decided.

    Raises SetupError if what is asked for does not fit.
    """
    train = config.train.model_copy(update={"workers": number})
    found = training(config.model_copy(update={"train": train}))
    return config.model_copy(update={"train": train.model_copy(update={"use_gpu": found.gpu})})


def check_training(config: Config) -> str:
    """Whether the workers of a training run have room."""
    return str(training(config))


MAKING: tuple[tuple[str, Check], ...] = (("generating", check_crew),)
"""Of a job that makes images."""

TRAINING: tuple[tuple[str, Check], ...] = (("training", check_training),)
"""Of a job that trains."""


def refuse(config: Config, checks: Sequence[tuple[str, Check]]) -> None:
    """Runs the checks; raises the DisclError of the first that finds something wrong."""
    for _, check in checks:
        check(config)
