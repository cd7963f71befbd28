"""Checks that run before a job starts; `doctor` runs the same ones and reports each.

A check returns what it found in a sentence, or raises a DisclError that names the key and the
remedy. It reads a configuration and this machine; it opens no image, loads no model and leaves no
file behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from discl_ray.cluster.demand import CARDS, FALLBACK
from discl_ray.cluster.inventory import present
from discl_ray.cluster.start import check_ray_start, set_environment
from discl_ray.config import Config
from discl_ray.config.whole import functions_from_outside
from discl_ray.core.run_directory import check_root, run_store
from discl_ray.errors import SetupError

Check = Callable[[Config], str]


def check_functions(config: Config) -> str:
    """Checks that the strategy and the filter can be imported where they are from outside.

    Both before any job: what generates is trained on by the same configuration. A reader from
    outside is not among them, as listing the data calls it first of all.
    """
    found: list[str] = []
    for group, name in functions_from_outside(config):
        group.load(name)
        found.append(f"{group.key} = {name}")
    return ", ".join(found) or "the package's own"


def check_run_root(config: Config) -> str:
    """Checks that runs can be written below `run.root`."""
    run_store(config.run.root, config.run.name, "")
    check_root(config.run.root)
    return f"{config.run.root}: can be written"


def check_ray(_: Config) -> str:
    """Checks that Ray can be started or joined."""
    set_environment()
    return check_ray_start()


FUNCTIONS: tuple[tuple[str, Check], ...] = (("functions", check_functions),)
"""Checks of every job that uses the configured filter or strategy, sooner or later."""

PLACES: tuple[tuple[str, Check], ...] = (("run root", check_run_root), ("Ray", check_ray))
"""The first checks of every job."""


def cards_of(config: Config) -> dict[str, float]:
    """The cluster's known GPU models, and the gigabytes each has at least."""
    return {name: CARDS[name].gigabytes for name in _known_cards(config)}


def _known_cards(config: Config) -> list[str]:
    cluster = present(config.run)
    return [name for name in cluster.cards if name in CARDS]


def settled(config: Config) -> tuple[Config, list[str]]:
    """The configuration with a precision that the cluster's GPUs support, and what was changed.

    The changes are sentences. Precision is part of an image's identity, so it is decided here,
    before anything is named by it, and not in a worker. The VAE gets float32, as some overflow in
    float16.
    Raises SetupError if some GPUs support bfloat16 and others do not, or for training in bfloat16.
    """
    generator, train = config.generator, config.train
    asked = [name for name in FALLBACK if getattr(generator, name) == "bfloat16"]
    makes_bf16 = bool(asked) and generator.num_gpus != 0
    trains_bf16 = train.precision == "bf16" and train.use_gpu is not False
    if not (makes_bf16 or trains_bf16):
        return config, []
    cards = _known_cards(config)
    unable = [name for name in cards if not CARDS[name].bf16]
    if not unable:
        return config, []
    fact = f"{', '.join(unable)} does not support bfloat16"
    values = {name: FALLBACK[name] for name in asked}
    keys = " ".join(f"generator.{name}={value}" for name, value in values.items())
    if makes_bf16 and len(unable) < len(cards):
        raise SetupError(
            f"{fact}, and other GPUs of the cluster do: images would differ; "
            f"set {keys}, which all support"
        )
    if trains_bf16:
        raise SetupError(f"train.precision = bf16: {fact}; set train.precision=fp32")
    change = (
        f"{fact}: images are made with {keys}; "
        "set the same where this spectrum is looked up from a machine with other GPUs"
    )
    settled_generator = generator.model_copy(update=values)
    return config.model_copy(update={"generator": settled_generator}), [change]


def refuse(config: Config, checks: Sequence[tuple[str, Check]]) -> None:
    """Runs the checks in order; raises the DisclError of the first that fails."""
    for _, check in checks:
        check(config)
