"""The space of a sweep: read, checked before the first trial, and sampled. No Ray.

Values are rounded to four digits, so that the table, the trial and `best.yaml` have the same ones.
"""

from __future__ import annotations

import difflib
import importlib.util
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from pydantic import BaseModel, ValidationError

from discl_ray.cluster.session import local_cpus
from discl_ray.config import Config, sentences, with_values
from discl_ray.curriculum.strategies import curriculum_levels
from discl_ray.errors import ConfigError
from discl_ray.train.config import AUGMENT_OF_START, OF_START

PARTS = ("curriculum", "train", "filter")
"""Sections that may be swept: those that decide a training run on a given spectrum."""

LISTS = ("choice", "grid")
RANGES = ("uniform", "loguniform", "randint")
DISTRIBUTIONS = (*LISTS, *RANGES)

SHARED = (
    *(f"train.{name}" for name in OF_START),
    *(f"train.augment.{name}" for name in AUGMENT_OF_START),
)
"""Keys of the start run, which all trials share."""

DECIDED = {"filter.threshold": "absolute", "filter.quantile": "quantile", "filter.rank": "rank"}
"""Keys that have an effect in one filter.mode only -> that mode."""

DRIVER = 0.1
"""CPUs of a trial that only waits for its Ray Train workers: a whole one could leave them none."""

TRIES = 100
"""Draws until a point differs from the others; a space without another one ends there."""

Point = dict[str, Any]
"""Dotted key -> value."""


@dataclass(frozen=True)
class Dimension:
    """One key and what it may be."""

    key: str
    kind: str
    values: tuple[Any, ...]
    """The candidates of a list; the ends of a range."""

    def candidates(self) -> tuple[Any, ...]:
        """Every value of a list; of a range its ends and one between, to find integer keys."""
        if self.kind in LISTS:
            return self.values
        low, high = self.values
        between = self.value(low + 0.382 * (high - low))
        return tuple(dict.fromkeys((low, between, high)))

    def draw(self, rng: np.random.Generator) -> Any:
        """One value, at random."""
        if self.kind in LISTS:
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "randint":
            return int(rng.integers(low, high + 1))
        if self.kind == "loguniform":
            exponent = rng.uniform(math.log(low), math.log(high))
            return self.value(math.exp(exponent))
        return self.value(rng.uniform(low, high))

    def value(self, drawn: float) -> Any:
        """A number of a range, rounded as the range is."""
        if self.kind == "randint":
            return round(drawn)
        low, high = self.values
        rounded = float(f"{drawn:.4g}")
        return min(max(rounded, low), high)


# -- reading


def read_space(space: Mapping[str, Any]) -> tuple[list[Dimension], list[str]]:
    """The dimensions of `tune.space` and what is wrong with it, in sentences.

    Keys may be dotted or nested. Overrides on the command line nest them, and replace what a file
    says about the same key.
    """
    dimensions: dict[str, Dimension] = {}
    spelt: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    for path, values in _leaves(space):
        *names, kind = ".".join(path).split(".")
        key = ".".join(names)
        at = f"tune.space.{key}"
        if not key:
            problems.append(
                f"tune.space.{kind} = {values!r}: a key with a distribution is needed, "
                "e.g. {choice: [1, 2]}"
            )
        elif kind not in DISTRIBUTIONS:
            hint = _near(kind, DISTRIBUTIONS)
            problems.append(f"{at}.{kind}: unknown distribution; {hint}")
        elif spelt.get(key) == path[:-1]:
            problems.append(f"{at}: has two distributions; leave one")
        elif wrong := _wrong_values(kind, values):
            problems.append(f"{at}.{kind} = {values!r}: {wrong}")
        else:
            dimensions[key] = Dimension(key, kind, tuple(values))
            spelt[key] = path[:-1]
    return list(dimensions.values()), problems


def _leaves(
    space: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in space.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, str(name)))
        else:
            yield (*path, str(name)), value


def _wrong_values(kind: str, values: Any) -> str:
    """What is wrong with the values of a distribution; empty if nothing is."""
    if not isinstance(values, list) or not values:
        return "a list is needed"
    if kind in LISTS:
        for number, value in enumerate(values):
            if value in values[:number]:  # values may be lists, which no set takes
                return "names a value twice"
        return ""
    if len(values) != 2 or not all(map(_is_number, values)):
        return "two numbers are needed, [low, high]"
    low, high = values
    whole = isinstance(low, int) and isinstance(high, int)
    if kind == "randint" and not whole:
        return "two whole numbers are needed"
    if not low < high:
        return "the first must be less than the second"
    if kind == "loguniform" and low <= 0:
        return "both must be more than 0"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _near(name: str, names: Sequence[str], *, listing: bool = True) -> str:
    """The nearest of some names, and all of them where `listing`, or where none is near."""
    hints = [f"did you mean '{near}'?" for near in difflib.get_close_matches(name, names, n=1)]
    if listing or not hints:
        every = ", ".join(names)
        hints.append(f"allowed: {every}")
    return " ".join(hints)


def sweepable() -> list[str]:
    """Every key that can be swept, dotted."""
    found: list[str] = []
    for part in PARTS:
        model = _model_in(Config.model_fields[part].annotation) or BaseModel
        found += [f"{part}.{name}" for name in _identity_names(model)]
    return found


def _identity_names(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner:
            yield from (f"{name}.{more}" for more in _identity_names(inner))
            continue
        extra = field.json_schema_extra
        if not (isinstance(extra, dict) and extra.get("kind") == "execution"):
            yield name


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


# -- drawing


def draw_points(dimensions: Sequence[Dimension], trials: int, seed: int) -> tuple[Point, ...]:
    """The points of a random sweep, all different; fewer than `trials` if the space has no more."""
    grids = [d for d in dimensions if d.kind == "grid"]
    others = [d for d in dimensions if d.kind != "grid"]
    corners = list(itertools.product(*(grid.values for grid in grids)))
    rng = np.random.default_rng([seed, 0x7E])
    points: list[Point] = []
    for number in range(trials if others else len(corners)):
        corner = corners[number % len(corners)]
        values = {grid.key: value for grid, value in zip(grids, corner, strict=True)}
        for _ in range(TRIES):
            point = values | {other.key: other.draw(rng) for other in others}
            if point not in points:
                points.append({dimension.key: point[dimension.key] for dimension in dimensions})
                break
    return tuple(points)


# -- checking


def needs(config: Config) -> dict[str, float]:
    """CPUs and GPUs that the concurrent trials of a sweep need."""
    train, concurrent = config.train, config.tune.concurrent
    if train.workers in ("auto", 1):
        found = {"CPU": float(concurrent)}
        if train.on_gpu:
            found["GPU"] = float(concurrent)
        return found
    waiting = concurrent * DRIVER
    workers = float(concurrent * train.workers)
    if train.on_gpu:
        return {"GPU": workers, "CPU": waiting}
    return {"CPU": workers + waiting}


def check_sweep(config: Config, made: tuple[int, ...]) -> list[Dimension]:
    """The validated dimensions of a sweep; `made` are the spectrum's λ in percent.

    Raises ConfigError with everything that is wrong: names, distributions, values, ends of ranges,
    levels, resources, packages.
    """
    dimensions, problems = read_space(config.tune.space)
    if not dimensions and not problems:
        problems.append(
            "tune.space is empty: lay one over the configuration, e.g. "
            'make tune CONF="conf/digits_lt.yaml conf/tune_digits_lt.yaml"'
        )
    known = sweepable()
    swept = {dimension.key for dimension in dimensions}
    sound: list[Dimension] = []
    for dimension in dimensions:
        wrong = _wrong_key(config, dimension.key, swept, known)
        wrong = wrong or _wrong_candidates(config, dimension, made)
        problems += wrong
        if not wrong:
            sound.append(dimension)
    if not problems:
        problems += _wrong_points(config, dimensions, made)
    problems += _wrong_settings(config, sound)
    if problems:
        plural = "s" if len(problems) > 1 else ""
        lines = [f"{len(problems)} problem{plural} in the sweep"]
        lines += [f"  {problem}" for problem in problems]
        raise ConfigError("\n".join(lines))
    return dimensions


def _wrong_key(config: Config, key: str, swept: set[str], known: list[str]) -> list[str]:
    at = f"tune.space.{key}"
    if key not in known:
        return [f"{at}: no key that can be swept; {_near(key, known, listing=False)}"]
    if key in SHARED and config.train.start_steps:
        return [
            f"{at}: the trials share a start made with {key}; sweep it with train.start_steps=0, "
            "or one value after the other"
        ]
    mode = DECIDED.get(key)
    if mode and config.filter.mode != mode and "filter.mode" not in swept:
        return [
            f"{at}: has no effect with filter.mode = {config.filter.mode}; set filter.mode={mode}"
        ]
    return []


def _wrong(config: Config, point: Point, made: tuple[int, ...]) -> list[str]:
    """What is wrong with a point."""
    try:
        curriculum = with_values(config, point).curriculum
        curriculum_levels(curriculum, made)
    except ValidationError as error:
        return sentences(error)
    except (ConfigError, ValueError) as error:
        return [str(error)]
    return []


def _wrong_candidates(config: Config, dimension: Dimension, made: tuple[int, ...]) -> list[str]:
    found: list[str] = []
    for value in dimension.candidates():
        found += _wrong(config, {dimension.key: value}, made)
    return [f"tune.space.{dimension.key}: {problem}" for problem in dict.fromkeys(found)]


def _wrong_points(
    config: Config, dimensions: Sequence[Dimension], made: tuple[int, ...]
) -> list[str]:
    """Values that are valid by themselves and not together."""
    found: dict[str, Point] = {}
    points = draw_points(dimensions, config.tune.trials, config.tune.seed)
    for point in points:
        for problem in _wrong(config, point, made):
            found.setdefault(problem, point)
    wrong: list[str] = []
    for problem, point in found.items():
        wrong.append(f"tune.space: {problem}, drawn with {shown(point)}")
    return wrong


def _wrong_settings(config: Config, dimensions: Sequence[Dimension]) -> list[str]:
    """What of `tune` does not fit the space, the training or the machine."""
    return [
        *_wrong_search(config, dimensions),
        *_wrong_epochs(config, dimensions),
        *_wrong_resources(config),
    ]


def _wrong_search(config: Config, dimensions: Sequence[Dimension]) -> Iterator[str]:
    tune = config.tune
    grids = [dimension for dimension in dimensions if dimension.kind == "grid"]
    corners = math.prod(len(grid.values) for grid in grids)
    if grids and tune.search == "optuna":
        yield (
            f"tune.space.{grids[0].key}.grid: tune.search = optuna draws; write choice, or "
            "tune.search=random"
        )
    elif tune.trials < corners:
        yield f"tune.trials = {tune.trials}: the grids have {corners} points; raise it"
    if tune.search == "optuna" and importlib.util.find_spec("optuna") is None:
        yield (
            "tune.search = optuna: the package optuna is not installed; pip install optuna, or "
            "tune.search=random"
        )


def longest_trial(config: Config, dimensions: Sequence[Dimension]) -> int:
    """The most epochs that a trial may have."""
    longest = config.train.epochs
    for dimension in dimensions:
        if dimension.key == "train.epochs":
            longest = max(longest, *dimension.values)
    return longest


def _wrong_epochs(config: Config, dimensions: Sequence[Dimension]) -> Iterator[str]:
    tune = config.tune
    longest = longest_trial(config, dimensions)
    if tune.scheduler == "asha" and tune.grace > longest:
        yield f"tune.grace = {tune.grace}: more than the {longest} epochs of a trial; lower it"


def _wrong_resources(config: Config) -> Iterator[str]:
    tune, train = config.tune, config.train
    if not train.alone and tune.seeds > 1:
        yield (
            f"tune.seeds = {tune.seeds}: with train.workers = {train.workers} a trial is one run; "
            "one of them must be 1"
        )
    if "RAY_ADDRESS" in os.environ:  # what a cluster has is checked when it is joined
        return
    cpus = local_cpus(config.run.num_cpus)
    asked = needs(config)["CPU"]
    if asked > cpus:
        yield (
            f"tune.concurrent = {tune.concurrent}: needs {asked:g} CPUs and there are {cpus} "
            "(run.num_cpus); lower it"
        )


def shown(point: Point) -> str:
    """A point in a line."""
    words = [f"{key}={text(value)}" for key, value in point.items()]
    return ", ".join(words)


def text(value: Any) -> str:
    """A value as it is written on a command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        inner = ",".join(map(text, value))
        return f"[{inner}]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def nested(point: Point) -> dict[str, Any]:
    """A point as sections, as a YAML file has them."""
    plain: dict[str, Any] = {}
    for key, value in point.items():
        *path, name = key.split(".")
        part = plain
        for step in path:
            part = part.setdefault(step, {})
        part[name] = value
    return plain
