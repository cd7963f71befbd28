"""Class name -> generation prompts and the filter prompt.

They differ: an image may be made from a scene description, and is scored against the plain class
("a photo of X"). Scene descriptions come from a file, for any class or for one; its content enters
the run's hash, its path does not.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from discl_ray.core import presets
from discl_ray.core.ids import stable_id
from discl_ray.core.storage import check_regular
from discl_ray.data.names import code_like
from discl_ray.data.root import same_name
from discl_ray.errors import ConfigError
from discl_ray.plan.config import PromptConfig
from discl_ray.plan.templates import LONGEST, broken_rule, has_control, placeholders

SHOWN_CLASSES = 5
"""Classes an error lists."""

SHOWN_PROBLEMS = 20

PARTS = ("any", "classes")
"""What a file of scene descriptions may hold."""

Texts = tuple[str, ...]

Content = dict[str, Any]
"""A mapping of a YAML or JSON file."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The prompts of all classes: a checked configuration and its scene descriptions."""

    config: PromptConfig
    general: Texts = ()
    """Scene descriptions of every class; none: `config.generation`."""
    by_class: Mapping[str, Texts] = field(default_factory=dict)
    """Class name -> its own scene descriptions."""

    @property
    def fingerprint(self) -> str:
        """Hash of the scene descriptions; empty if there are none."""
        if not self.general and not self.by_class:
            return ""
        by_class = dict(self.by_class)
        return stable_id(self.general, by_class)

    def generation(self, class_name: str, replica: int) -> str:
        """The generator's prompt for one replica of a class."""
        own = self.by_class.get(class_name)
        templates = own or self.general or self.config.generation
        # replicas take the templates in turn
        template = templates[replica % len(templates)]
        return template.format(name=class_name)

    def filter(self, class_name: str) -> str:
        """The prompt the scorer compares with."""
        return self.config.filter.format(name=class_name)

    def check(self, class_names: Collection[str]) -> None:
        """Raises ConfigError like `check_names`, and for scenes of a class not in the data set."""
        check_names(class_names, force=self.config.force)
        known = set(class_names)
        unknown = [name for name in self.by_class if name not in known]
        if not unknown:
            return
        problems: list[str] = []
        for name in unknown[:SHOWN_CLASSES]:
            nearest = _nearest(name, class_names)
            problems.append(f"classes.{nearest}")
        file = str(self.config.scenes)
        raise ConfigError(_report(file, problems, len(unknown)))


def load_prompts(config: PromptConfig) -> Prompts:
    """The prompts of a configuration with the scene descriptions of its file.

    A relative path is one from the working directory. Raises ConfigError naming the file and every
    key whose rule is broken.
    """
    if config.scenes is None:
        return Prompts(config=config)
    value = _read(config.scenes)
    if not isinstance(value, dict):
        parts = " or ".join(PARTS)
        key = f"prompts.scenes = '{config.scenes}'"
        raise ConfigError(f"{key}: a mapping with {parts} is needed")
    problems = list(_problems(value))
    if problems:
        shown = problems[:SHOWN_PROBLEMS]
        raise ConfigError(_report(config.scenes, shown, len(problems)))
    by_class: dict[str, Texts] = {}
    classes = value.get("classes", {})
    for name, texts in classes.items():
        by_class[name] = _folded_all(texts)
    general = _folded_all(value.get("any", ()))
    return Prompts(config=config, general=general, by_class=by_class)


def check_names(class_names: Iterable[str], *, force: bool) -> None:
    """Raises ConfigError for names that cannot be in a prompt; `force` accepts code-like names."""
    names = list(class_names)
    remedy = "give data.names=FILE.csv with the header `class,name` and a line for each"
    broken = list(filter(_is_broken, names))
    if broken:
        shown = _some(broken)
        raise ConfigError(
            f"class names that are empty or hold a control character: {shown}; {remedy}, "
            "or rename them"
        )
    codes = list(filter(code_like, names))
    if codes and not force:
        shown = _some(codes)
        raise ConfigError(
            f"class names that read like codes, which no text encoder knows: {shown}; "
            f"{remedy}, or prompts.force=true"
        )


def _is_broken(name: str) -> bool:
    """Whether a class name cannot be in a prompt at all."""
    return not name.strip() or has_control(name)


def _folded(text: str) -> str:
    """Text on one line: YAML's blocks end with a line break that is not part of the text."""
    return " ".join(text.split())


def _folded_all(texts: Iterable[str]) -> Texts:
    """Texts, each on one line."""
    return tuple(map(_folded, texts))


class _Loader(yaml.BaseLoader):
    """Every scalar is text (`no` and `17` may be classes), and a duplicate key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # deep at once: a mapping inside is complete when its keys are looked at
        pairs = self.construct_pairs(node, deep=True)
        return _unique(pairs)


def _unique(pairs: Iterable[tuple[Any, Any]]) -> Content:
    """The mapping of a file, its keys normalised as class names are."""
    found: Content = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError(f"key {key!r}: text is needed")
        name = same_name(key)
        if name in found:
            raise ValueError(f"key {key!r} stands twice")
        found[name] = value
    return found


def _read(name: str) -> Any:
    """The content of a YAML or JSON file."""
    path = presets.find(name)
    key = f"prompts.scenes = '{name}'"
    try:
        check_regular(path)
        # some editors on Windows begin a file with a byte order mark
        text = path.read_text(encoding="utf-8-sig")
        # without the hook json would keep the last of two equal keys
        if name.lower().endswith(".json"):
            return json.loads(text, object_pairs_hook=_unique)
        return yaml.load(text, Loader=_Loader)
    except FileNotFoundError as error:
        folder = Path.cwd()
        raise ConfigError(f"{key}: no such file in {folder}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{key}: cannot be read: {reason}") from error


def _problems(value: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a file of scene descriptions, a sentence each."""
    for key in value:
        if key not in PARTS:
            yield _unknown_key(key)
    if not set(value) & set(PARTS):
        parts = " or ".join(PARTS)
        yield f"no scene descriptions; give {parts}"
    if "any" in value:
        yield from _list_problems("any", value["any"], general=True)
    if "classes" not in value:
        return
    classes = value["classes"]
    if not isinstance(classes, dict) or not classes:
        yield "classes: a mapping of class names to lists of descriptions is needed"
        return
    for name, texts in classes.items():
        yield from _list_problems(f"classes.{name}", texts, general=False)


def _unknown_key(key: str) -> str:
    """A key that is none of PARTS, and the one that may be meant."""
    allowed = ", ".join(PARTS)
    near = difflib.get_close_matches(key, PARTS, n=1)
    hint = ""
    if near:
        hint = f"did you mean '{near[0]}'? "
    return f"{key}: unknown key; {hint}allowed: {allowed}"


def _list_problems(key: str, texts: Any, *, general: bool) -> Iterator[str]:
    """What is wrong with the value of a key that holds scene descriptions."""
    if not isinstance(texts, list) or not texts:
        yield f"{key}: a list with at least one description is needed"
        return
    for i, text in enumerate(texts):
        where = f"{key}[{i}]"
        if not isinstance(text, str):
            shown = str(text)[:60]
            yield f"{where} = {shown}: text is needed"
            continue
        problem = _text_problem(_folded(text), general=general)
        if problem:
            yield f"{where} = {problem}"


def _text_problem(text: str, *, general: bool) -> str | None:
    """A scene description and its broken rule; None if it has none."""
    shown = text[:60]
    rule = broken_rule(text)
    if rule:
        return f"{shown!r}: {rule}"
    length = len(text)
    if length > LONGEST:
        begin = text[:40]
        return f"'{begin}…': {length} characters, at most {LONGEST} are allowed"
    if general and not placeholders(text):
        return f"'{shown}': needs {{name}}, because it is for every class"
    return None


def _nearest(name: str, names: Collection[str]) -> str:
    """An unknown class with the classes most like it."""
    near = difflib.get_close_matches(name, names, n=3)
    problem = f"{name}: no such class in the data set"
    if near:
        meant = " or ".join(map(repr, near))
        return f"{problem}; did you mean {meant}?"
    some = _some(sorted(names))
    return f"{problem}; classes are {some}"


def _some(names: Collection[str]) -> str:
    """The first of some names, and how many more there are."""
    first = list(names)[:SHOWN_CLASSES]
    shown = ", ".join(map(repr, first))
    more = len(names) - SHOWN_CLASSES
    if more <= 0:
        return shown
    return f"{shown} and {more} more"


def _report(file: str, problems: list[str], total: int) -> str:
    """The first of `total` problems of a file, a line each."""
    count = "1 problem" if total == 1 else f"{total} problems"
    lines = [f"prompts.scenes = '{file}': {count}"]
    lines += [f"  {problem}" for problem in problems]
    more = total - len(problems)
    if more:
        lines.append(f"  and {more} more")
    return "\n".join(lines)
