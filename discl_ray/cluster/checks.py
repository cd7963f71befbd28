"""What a job refuses before it begins, one check after the other; the doctor runs the same ones and reports each.

A check returns what it found in a sentence, or raises a DisclError that names the key and the remedy. It reads a configuration and
looks at this machine; no image is opened, no model loaded, nothing written that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from discl_ray.cluster.demand import CARDS, FALLBACK
from discl_ray.cluster.inventory import present
from discl_ray.cluster.start import check_ray_start, set_environment
from discl_ray.config import Config
from discl_ray.core.run_directory import check_root, run_store
from discl_ray.errors import SetupError

Check = Callable[[Config], str]


def check_run_root(config: Config) -> str:
    """Whether runs can be written where they are to lie."""
    run_store(config.run.root, config.run.name, "")
    check_root(config.run.root)
    return f"{config.run.root}: can be written"


def check_ray(_: Config) -> str:
    """Whether Ray can be started or joined."""
    set_environment()
    return check_ray_start()


PLACES: tuple[tuple[str, Check], ...] = (("run root", check_run_root), ("Ray", check_ray))
"""Of every job, before anything else."""


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
    making, learning = (
        bool(asked) and generator.num_gpus != 0,
        train.precision == "bf16" and train.use_gpu is not False,
    )
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
        raise SetupError(
            f"{told}, and other cards of the cluster do: images would differ; set {keys}, which all can"
        )
    if learning:
        raise SetupError(f"train.precision = bf16: {told}; set train.precision=fp32")
    sentence = f"{told}: images are made with {keys}; say so too wherever this spectrum is to be found from a machine with other cards"
    return config.model_copy(update={"generator": generator.model_copy(update=values)}), [sentence]


def refuse(config: Config, checks: Sequence[tuple[str, Check]]) -> None:
    """Runs the checks; raises the DisclError of the first that finds something wrong."""
    for _, check in checks:
        check(config)
