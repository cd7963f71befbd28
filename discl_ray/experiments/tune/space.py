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

Levels = tuple[int, ...]
"""Levels λ in percent."""

Path = tuple[str, ...]
"""The keys that lead to a value of a nested mapping."""


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
        inside = low + 0.382 * (high - low)
        between = self.value(inside)
        distinct = dict.fromkeys((low, between, high))
        return tuple(distinct)

    def draw(self, rng: np.random.Generator) -> Any:
        """One value, at random."""
        if self.kind in LISTS:
            number = rng.integers(len(self.values))
            return self.values[int(number)]
        low, high = self.values
        if self.kind == "randint":
            whole = rng.integers(low, high + 1)
            return int(whole)
        if self.kind == "loguniform":
            lowest = math.log(low)
            highest = math.log(high)
            exponent = rng.uniform(lowest, highest)
            return self.value(math.exp(exponent))
        drawn = rng.uniform(low, high)
        return self.value(drawn)

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
    spelt: dict[str, Path] = {}
    problems: list[str] = []
    for path, values in _leaves(space):
        above = path[:-1]
        dotted = ".".join(path)
        key, _, kind = dotted.rpartition(".")
        at = f"tune.space.{key}"
        if not key:
            problems.append(
                f"tune.space.{kind} = {values!r}: a key with a distribution is needed, "
                "e.g. {choice: [1, 2]}"
            )
        elif kind not in DISTRIBUTIONS:
            hint = _near(kind, DISTRIBUTIONS)
            problems.append(f"{at}.{kind}: unknown distribution; {hint}")
        elif spelt.get(key) == above:
            problems.append(f"{at}: has two distributions; leave one")
        elif wrong := _wrong_values(kind, values):
            problems.append(f"{at}.{kind} = {values!r}: {wrong}")
        else:
            dimensions[key] = Dimension(key, kind, tuple(values))
            spelt[key] = above
    return list(dimensions.values()), problems


def _leaves(space: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The path and the value of everything in a mapping that holds nothing further."""
    for name, value in space.items():
        path = (*above, str(name))
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        else:
            yield path, value


def _wrong_values(kind: str, values: Any) -> str:
    """What is wrong with the values of a distribution; empty if nothing is."""
    if not isinstance(values, list) or not values:
        return "a list is needed"
    if kind in LISTS:
        for number, value in enumerate(values):
            before = values[:number]
            if value in before:  # values may be lists, which no set takes
                return "names a value twice"
        return ""
    return _wrong_range(kind, values)


def _wrong_range(kind: str, values: Sequence[Any]) -> str:
    """What is wrong with the ends of a range; empty if nothing is."""
    are_numbers = all(map(_is_number, values))
    if len(values) != 2 or not are_numbers:
        return "two numbers are needed, [low, high]"
    low, high = values
    if kind == "randint":
        whole = isinstance(low, int) and isinstance(high, int)
        if not whole:
            return "two whole numbers are needed"
    if not low < high:
        return "the first must be less than the second"
    if kind == "loguniform" and low <= 0:
        return "both must be more than 0"
    return ""


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):  # is an int in Python
        return False
    return isinstance(value, int | float)


def _near(name: str, names: Sequence[str], *, listing: bool = True) -> str:
    """The nearest of some names, and all of them where `listing`, or where none is near."""
    nearest = difflib.get_close_matches(name, names, n=1)
    hints = [f"did you mean '{near}'?" for near in nearest]
    if listing or not hints:
        every = ", ".join(names)
        hints.append(f"allowed: {every}")
    return " ".join(hints)


def sweepable() -> list[str]:
    """Every key that can be swept, dotted."""
    found: list[str] = []
    for part in PARTS:
        field = Config.model_fields[part]
        model = _model_in(field.annotation) or BaseModel
        names = _identity_names(model)
        found += [f"{part}.{name}" for name in names]
    return found


def _identity_names(model: type[BaseModel]) -> Iterator[str]:
    """The dotted keys of a section that decide a run's result."""
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner:
            for below in _identity_names(inner):
                yield f"{name}.{below}"
            continue
        extra = field.json_schema_extra
        kind = extra.get("kind") if isinstance(extra, dict) else None
        if kind != "execution":
            yield name


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, if it holds one."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


# -- drawing


def draw_points(dimensions: Sequence[Dimension], trials: int, seed: int) -> tuple[Point, ...]:
    """The points of a random sweep, all different; fewer than `trials` if the space has no more."""
    grids = _grids(dimensions)
    others = [dimension for dimension in dimensions if dimension.kind != "grid"]
    lists = [grid.values for grid in grids]
    corners = list(itertools.product(*lists))  # one without values if there is no grid
    rng = np.random.default_rng([seed, 0x7E])
    order = [dimension.key for dimension in dimensions]
    count = trials if others else len(corners)
    points: list[Point] = []
    for number in range(count):
        corner = corners[number % len(corners)]
        fixed = _at_corner(grids, corner)
        for _ in range(TRIES):
            drawn = {other.key: other.draw(rng) for other in others}
            point = fixed | drawn
            if point not in points:
                ordered = {key: point[key] for key in order}
                points.append(ordered)
                break
    return tuple(points)


def _at_corner(grids: Sequence[Dimension], values: tuple[Any, ...]) -> Point:
    """A value of each grid, by key."""
    keys = [grid.key for grid in grids]
    return dict(zip(keys, values, strict=True))


def _grids(dimensions: Sequence[Dimension]) -> list[Dimension]:
    return [dimension for dimension in dimensions if dimension.kind == "grid"]


# -- checking


def needs(config: Config) -> dict[str, float]:
    """CPUs and GPUs that the concurrent trials of a sweep need."""
    train = config.train
    concurrent = config.tune.concurrent
    if train.workers in ("auto", 1):
        each = float(concurrent)
        if train.on_gpu:
            return {"CPU": each, "GPU": each}
        return {"CPU": each}
    waiting = concurrent * DRIVER
    workers = float(concurrent * train.workers)
    if train.on_gpu:
        return {"GPU": workers, "CPU": waiting}
    return {"CPU": workers + waiting}


def check_sweep(config: Config, made: Levels) -> list[Dimension]:
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
        raise ConfigError(_listed(problems))
    return dimensions


def _listed(problems: Sequence[str]) -> str:
    """How many problems there are, and each on a line."""
    count = len(problems)
    noun = "problem" if count == 1 else "problems"
    lines = [f"{count} {noun} in the sweep"]
    lines += [f"  {problem}" for problem in problems]
    return "\n".join(lines)


def _wrong_key(config: Config, key: str, swept: set[str], known: list[str]) -> list[str]:
    """What is wrong with a key, in at most one sentence."""
    at = f"tune.space.{key}"
    if key not in known:
        hint = _near(key, known, listing=False)
        return [f"{at}: no key that can be swept; {hint}"]
    if key in SHARED and config.train.start_steps:
        return [
            f"{at}: the trials share a start made with {key}; sweep it with train.start_steps=0, "
            "or one value after the other"
        ]
    needed = DECIDED.get(key)
    mode = config.filter.mode
    if needed in (None, mode) or "filter.mode" in swept:
        return []
    return [f"{at}: has no effect with filter.mode = {mode}; set filter.mode={needed}"]


def _wrong(config: Config, point: Point, made: Levels) -> list[str]:
    """What is wrong with a point."""
    try:
        curriculum = with_values(config, point).curriculum
        curriculum_levels(curriculum, made)
    except ValidationError as error:
        return sentences(error)
    except (ConfigError, ValueError) as error:
        return [str(error)]
    return []


def _wrong_candidates(config: Config, dimension: Dimension, made: Levels) -> list[str]:
    """Values of one dimension that are not valid, each problem once."""
    key = dimension.key
    found: list[str] = []
    for value in dimension.candidates():
        found += _wrong(config, {key: value}, made)
    distinct = dict.fromkeys(found)
    return [f"tune.space.{key}: {problem}" for problem in distinct]


def _wrong_points(config: Config, dimensions: Sequence[Dimension], made: Levels) -> list[str]:
    """Values that are valid by themselves and not together."""
    tune = config.tune
    found: dict[str, Point] = {}
    for point in draw_points(dimensions, tune.trials, tune.seed):
        for problem in _wrong(config, point, made):
            found.setdefault(problem, point)
    wrong: list[str] = []
    for problem, point in found.items():
        drawn = shown(point)
        wrong.append(f"tune.space: {problem}, drawn with {drawn}")
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
    by_optuna = tune.search == "optuna"
    grids = _grids(dimensions)
    sizes = [len(grid.values) for grid in grids]
    corners = math.prod(sizes)
    if grids and by_optuna:
        first = grids[0].key
        yield (
            f"tune.space.{first}.grid: tune.search = optuna draws; write choice, or "
            "tune.search=random"
        )
    elif tune.trials < corners:
        yield f"tune.trials = {tune.trials}: the grids have {corners} points; raise it"
    if by_optuna and importlib.util.find_spec("optuna") is None:
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
    if config.tune.scheduler != "asha":
        return
    grace = config.tune.grace
    longest = longest_trial(config, dimensions)
    if grace > longest:
        yield f"tune.grace = {grace}: more than the {longest} epochs of a trial; lower it"


def _wrong_resources(config: Config) -> Iterator[str]:
    tune = config.tune
    train = config.train
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
    words: list[str] = []
    for key, value in point.items():
        written = text(value)
        words.append(f"{key}={written}")
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
