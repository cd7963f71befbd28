"""The space of a sweep: read from the configuration, checked to its ends before the first trial, drawn from. No Ray.

Values are rounded to four digits, so that what the table shows, what a trial ran with and what `best.yaml` says are the same.
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

LISTS, RANGES = ("choice", "grid"), ("uniform", "loguniform", "randint")

SHARED = (
    *(f"train.{name}" for name in OF_START),
    *(f"train.augment.{name}" for name in AUGMENT_OF_START),
)
"""What the start is made with, which all trials share."""

DECIDED = {"filter.threshold": "absolute", "filter.quantile": "quantile", "filter.rank": "rank"}
"""Values that have a say only in one filter.mode."""

DRIVER = 0.1
"""CPUs of a trial that only waits for its Ray Train workers. A whole one would keep the workers from ever being placed."""

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
        """Every value of a list; of a range the ends and one in between, which tells whether the key takes fractions."""
        if self.kind in LISTS:
            return self.values
        low, high = self.values
        return tuple(dict.fromkeys((low, self.value(low + 0.382 * (high - low)), high)))

    def draw(self, rng: np.random.Generator) -> Any:
        """One value, at random."""
        if self.kind in LISTS:
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "randint":
            return int(rng.integers(low, high + 1))
        if self.kind == "loguniform":
            return self.value(math.exp(rng.uniform(math.log(low), math.log(high))))
        return self.value(rng.uniform(low, high))

    def value(self, drawn: float) -> Any:
        """A number of a range, rounded as the range is."""
        low, high = self.values
        return (
            round(drawn) if self.kind == "randint" else min(max(float(f"{drawn:.4g}"), low), high)
        )


# -- reading


def read_space(space: Mapping[str, Any]) -> tuple[list[Dimension], list[str]]:
    """The dimensions of `tune.space` and what is wrong with it, in sentences.

    Keys may be dotted or nested. A command line's overrides nest them, and stand in for what a file says of the same key.
    """
    dimensions: dict[str, Dimension] = {}
    spelt: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    for path, values in _leaves(space):
        *names, kind = [name for part in path for name in part.split(".")]
        key = ".".join(names)
        at = f"tune.space.{key}"
        if not key:
            problems.append(
                f"tune.space.{kind} = {values!r}: a key with a distribution is needed, e.g. {{choice: [1, 2]}}"
            )
        elif kind not in (*LISTS, *RANGES):
            problems.append(f"{at}.{kind}: unknown distribution; {_near(kind, (*LISTS, *RANGES))}")
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
    """Why the values of a distribution cannot be; empty if they can."""
    if not isinstance(values, list) or not values:
        return "a list is needed"
    if kind in LISTS:
        return "names a value twice" if any(v in values[:i] for i, v in enumerate(values)) else ""
    if len(values) != 2 or any(
        isinstance(v, bool) or not isinstance(v, int | float) for v in values
    ):
        return "two numbers are needed, [low, high]"
    low, high = values
    if kind == "randint" and not all(isinstance(v, int) for v in values):
        return "two whole numbers are needed"
    if not low < high:
        return "the first must be less than the second"
    return "both must be more than 0" if kind == "loguniform" and low <= 0 else ""


def _near(name: str, names: Sequence[str], *, listing: bool = True) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    hint = [f"did you mean '{near[0]}'?"] if near else []
    return " ".join([*hint, *([f"allowed: {', '.join(names)}"] if listing or not near else [])])


def sweepable() -> list[str]:
    """Every key that can be swept, dotted."""
    return [
        f"{part}.{name}"
        for part in PARTS
        for name in _identity_names(_model_in(Config.model_fields[part].annotation) or BaseModel)
    ]


def _identity_names(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if inner := _model_in(field.annotation):
            yield from (f"{name}.{more}" for more in _identity_names(inner))
        elif not (
            isinstance(field.json_schema_extra, dict)
            and field.json_schema_extra.get("kind") == "execution"
        ):
            yield name


def _model_in(annotation: Any) -> type[BaseModel] | None:
    kinds = [
        kind
        for kind in (annotation, *get_args(annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
    return kinds[0] if kinds else None


# -- drawing


def draw_points(dimensions: Sequence[Dimension], trials: int, seed: int) -> tuple[Point, ...]:
    """The points of a random sweep, all different; fewer than `trials` where the space has no more."""
    grids = [d for d in dimensions if d.kind == "grid"]
    others = [d for d in dimensions if d.kind != "grid"]
    corners = list(itertools.product(*(d.values for d in grids)))
    rng = np.random.default_rng([seed, 0x7E])
    points: list[Point] = []
    for number in range(trials if others else len(corners)):
        corner = dict(zip((d.key for d in grids), corners[number % len(corners)], strict=True))
        for _ in range(100):
            point = corner | {d.key: d.draw(rng) for d in others}
            if point not in points:
                points.append({d.key: point[d.key] for d in dimensions})
                break
    return tuple(points)


# -- checking


def needs(config: Config) -> dict[str, float]:
    """What the trials of a sweep hold at once."""
    train, concurrent = config.train, config.tune.concurrent
    if train.workers in ("auto", 1):
        return {"CPU": float(concurrent)} | ({"GPU": float(concurrent)} if train.on_gpu else {})
    workers = {"GPU" if train.on_gpu else "CPU": float(concurrent * train.workers)}
    return {**workers, "CPU": workers.get("CPU", 0.0) + concurrent * DRIVER}


def check_sweep(config: Config, made: tuple[int, ...]) -> list[Dimension]:
    """The dimensions of a sweep whose every part can be; `made` are the levels of the spectrum.

    Raises ConfigError with everything that is wrong: names, distributions, values, ends of ranges, levels, resources, packages.
    """
    dimensions, problems = read_space(config.tune.space)
    if not dimensions and not problems:
        problems.append(
            "tune.space is empty: lay one over the configuration, e.g. "
            'make tune CONF="conf/digits_lt.yaml conf/tune_digits_lt.yaml"'
        )
    known = sweepable()
    swept = {d.key for d in dimensions}
    tried = []
    for dimension in dimensions:
        wrong = _wrong_key(config, dimension.key, swept, known) or _wrong_candidates(
            config, dimension, made
        )
        problems += wrong
        tried += [] if wrong else [dimension]
    if not problems:
        problems += _wrong_points(config, dimensions, made)
    problems += _wrong_settings(config, tried)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError("\n".join([f"{count} in the sweep", *(f"  {p}" for p in problems)]))
    return dimensions


def _wrong_key(config: Config, key: str, swept: set[str], known: list[str]) -> list[str]:
    at = f"tune.space.{key}"
    if key not in known:
        return [f"{at}: no key that can be swept; {_near(key, known, listing=False)}"]
    if key in SHARED and config.train.start_steps:
        return [
            f"{at}: the trials share a start made with {key}; sweep it with train.start_steps=0, or one after the other"
        ]
    mode = DECIDED.get(key)
    if mode and config.filter.mode != mode and "filter.mode" not in swept:
        return [
            f"{at}: has no say while filter.mode = {config.filter.mode}; set filter.mode={mode}"
        ]
    return []


def _wrong(config: Config, point: Point, made: tuple[int, ...]) -> list[str]:
    """What is wrong with a point."""
    try:
        there = with_values(config, point)
        curriculum_levels(there.curriculum, made)
    except ValidationError as error:
        return sentences(error)
    except (ConfigError, ValueError) as error:
        return [str(error)]
    return []


def _wrong_candidates(config: Config, dimension: Dimension, made: tuple[int, ...]) -> list[str]:
    found = [
        p for value in dimension.candidates() for p in _wrong(config, {dimension.key: value}, made)
    ]
    return [f"tune.space.{dimension.key}: {problem}" for problem in dict.fromkeys(found)]


def _wrong_points(
    config: Config, dimensions: Sequence[Dimension], made: tuple[int, ...]
) -> list[str]:
    """Values that can be, each for itself, and cannot be together."""
    found: dict[str, Point] = {}
    for point in draw_points(dimensions, config.tune.trials, config.tune.seed):
        for problem in _wrong(config, point, made):
            found.setdefault(problem, point)
    return [f"tune.space: {problem}, drawn with {shown(point)}" for problem, point in found.items()]


def _wrong_settings(config: Config, dimensions: Sequence[Dimension]) -> list[str]:
    tune, train = config.tune, config.train
    problems = []
    grids = [d for d in dimensions if d.kind == "grid"]
    corners = math.prod(len(d.values) for d in grids)
    if grids and tune.search == "optuna":
        problems.append(
            f"tune.space.{grids[0].key}.grid: tune.search = optuna draws; write choice, or tune.search=random"
        )
    elif tune.trials < corners:
        problems.append(f"tune.trials = {tune.trials}: the grids have {corners} points; raise it")
    if tune.search == "optuna" and importlib.util.find_spec("optuna") is None:
        problems.append(
            "tune.search = optuna: the package optuna is not installed; pip install optuna, or tune.search=random"
        )
    longest = max(
        [train.epochs, *(v for d in dimensions if d.key == "train.epochs" for v in d.values)]
    )
    if tune.scheduler == "asha" and tune.grace > longest:
        problems.append(
            f"tune.grace = {tune.grace}: more than the {longest} epochs of a trial; lower it"
        )
    if not train.alone and tune.seeds > 1:
        problems.append(
            f"tune.seeds = {tune.seeds}: with train.workers = {train.workers} a trial is one run; one of them must be 1"
        )
    cpus, asked = local_cpus(config.run.num_cpus), needs(config)["CPU"]
    if "RAY_ADDRESS" not in os.environ and asked > cpus:
        problems.append(
            f"tune.concurrent = {tune.concurrent}: needs {asked:g} CPUs and there are {cpus} (run.num_cpus); lower it"
        )
    return problems


def shown(point: Point) -> str:
    """A point in a line."""
    return ", ".join(f"{key}={text(value)}" for key, value in point.items())


def text(value: Any) -> str:
    """A value as it is written on a command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


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
