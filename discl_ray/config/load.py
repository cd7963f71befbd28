"""Reads YAML files and overrides into one configuration, and says where what is wrong was given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from discl_ray.config.overrides import command_line, read_overrides
from discl_ray.config.problems import place_of, report_of, sentence_of
from discl_ray.config.whole import Config
from discl_ray.core import presets
from discl_ray.errors import ConfigError

Problem = tuple[Sequence[Any], str]
"""Where it is, as the keys that lead there, and what it is, as a sentence."""


def load_config(paths: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Reads YAML files, each over the ones before it (a data set's, then a model's), applies
    `key=value` and validates.

    Raises ConfigError naming every problem: where it was given, path, value, what is allowed, the
    nearest name.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    given = read_overrides(overrides)
    read = [(str(file), _read(file)) for file in files]
    keys = [override.partition("=")[0] for override in overrides]
    sources = _Sources(files=read, overrides=keys, given=_plain(given))
    values = _merged(sources, given)
    uninterpreted = [_not_interpreted(key, value) for key, value in _interpolations(values)]
    if uninterpreted:
        raise ConfigError(sources.report(uninterpreted))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems: list[Problem] = []
        for found_error in error.errors():
            problems.append((place_of(found_error), sentence_of(found_error)))
        raise ConfigError(sources.report(problems)) from error


def _read(file: str | Path) -> DictConfig:
    """A YAML file's sections.

    Raises ConfigError if there is no such file or preset, or it cannot be read.
    """
    path = presets.find(file)
    if not path.is_file():
        what = "is no regular file" if path.exists() else "no such file"
        known = ", ".join(presets.names())
        raise ConfigError(f"{file}: {what}; nor one of the presets, which are {known}")
    try:
        found = OmegaConf.load(path)
    except (
        OSError,
        UnicodeDecodeError,
        TypeError,
        yaml.YAMLError,
        OmegaConfBaseException,
    ) as error:
        why = _one_line(error)
        raise ConfigError(f"{file}: cannot be read: {why}") from error
    if not isinstance(found, DictConfig):
        raise ConfigError(f"{file}: a mapping of sections is needed")
    return found


def _one_line(error: Exception) -> str:
    """An error's message without its line breaks."""
    words = str(error).split()
    return " ".join(words)


def _plain(values: Any) -> Any:
    """OmegaConf's containers as lists and dicts; `${...}` stays as it is written."""
    return OmegaConf.to_container(values, resolve=False)


@dataclass(frozen=True, kw_only=True)
class _Sources:
    """Where the values of a configuration come from, for whoever has to mend one."""

    files: Sequence[tuple[str, DictConfig]]
    overrides: Sequence[str]
    """Their keys."""
    given: Any
    """What they say, nested."""

    @property
    def all(self) -> str:
        """All of them."""
        names = [name for name, _ in self.files]
        if self.overrides:
            names.append(command_line())
        return " + ".join(names)

    def of(self, place: Sequence[Any], problem: str) -> str:
        """The source of the value at a place, or of a key that the problem names; empty if none
        says anything there."""
        if _says(self.given, place):
            return command_line()
        if any(_names(problem, key) for key in self.overrides):
            return command_line()
        for name, part in reversed(self.files):
            if _says(_plain(part), place):
                return name
        return ""

    def report(self, problems: Sequence[Problem]) -> str:
        """Problems as one text; where several sources have some, each says which."""
        sentences = [sentence for _, sentence in problems]
        sources = [self.of(place, sentence) for place, sentence in problems]
        named = list(dict.fromkeys(filter(None, sources)))
        if not named:
            return report_of(self.all, sentences)
        if len(named) == 1:
            return report_of(named[0], sentences)
        lines: list[str] = []
        for source, sentence in zip(sources, sentences, strict=True):
            line = f"{sentence} ({source})" if source else sentence
            lines.append(line)
        return report_of(" + ".join(named), lines)


def _merged(sources: _Sources, given: DictConfig) -> Any:
    """The files, each over the ones before it, and the overrides over all, nested."""
    parts = [part for _, part in sources.files]
    try:
        merged = OmegaConf.merge(*parts, given)
        return _plain(merged)
    except (TypeError, OmegaConfBaseException) as error:
        why = _one_line(error)
        raise ConfigError(f"{sources.all}: cannot be laid over each other: {why}") from error


def _names(problem: str, key: str) -> bool:
    """Whether a sentence names a dotted key as a whole."""
    escaped = re.escape(key)
    return re.search(rf"(?<![\w.]){escaped}(?![\w.])", problem) is not None


def _says(values: Any, place: Sequence[Any]) -> bool:
    """Whether nested values have something at a place, or something other than a mapping on the way
    to it."""
    for part in place:
        if not isinstance(values, Mapping):
            return True
        if part not in values:
            return False
        values = values[part]
    return True


def _interpolations(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and values of what reads `${...}`."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            at = f"{path}.{key}" if path else str(key)
            yield from _interpolations(inner, at)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            at = f"{path}[{i}]"
            yield from _interpolations(inner, at)
    elif isinstance(value, str) and "${" in value:
        yield path, value


def _not_interpreted(key: str, value: str) -> Problem:
    """What is wrong with a value that reads `${...}`."""
    keys = re.split(r"[.\[\]]+", key)
    return keys, f"{key} = '{value}': ${{...}} is not interpreted here; write the value"
