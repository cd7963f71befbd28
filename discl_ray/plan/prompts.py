"""Class name -> generation prompts and the filter prompt.

They are two things: an image may be made from a scene description, and is scored against the plain
class ("a photo of X"). Scene descriptions come from a file, for any class or for one; their content
decides what is made, the file's place does not.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from discl_ray.core.ids import stable_id
from discl_ray.core.storage import check_regular
from discl_ray.data.names import code_like
from discl_ray.data.root import same_name
from discl_ray.errors import ConfigError
from discl_ray.plan.config import PromptConfig
from discl_ray.plan.templates import LONGEST, broken_rule, has_control, placeholders

NAMED = 5
"""Classes an error names."""


PARTS = ("any", "classes")
"""What a file of scene descriptions may hold."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What the classes are called towards the models: the configuration and the scene descriptions,
    already checked."""

    config: PromptConfig
    general: tuple[str, ...] = ()
    """Scene descriptions of every class; none: `config.generation`."""
    by_class: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class name -> its own scene descriptions."""

    @property
    def fingerprint(self) -> str:
        """Hash of the scene descriptions; empty if there are none."""
        return stable_id(self.general, dict(self.by_class)) if self.general or self.by_class else ""

    def generation(self, class_name: str, replica: int) -> str:
        """The generator's prompt for one replica of a class."""
        templates = self.by_class.get(class_name) or self.general or self.config.generation
        return templates[replica % len(templates)].format(name=class_name)

    def filter(self, class_name: str) -> str:
        """The prompt the scorer compares with."""
        return self.config.filter.format(name=class_name)

    def check(self, class_names: Collection[str]) -> None:
        """Whether the data set's class names and these prompts belong together.

        Raises ConfigError like `check_names`, and if a class of the scene descriptions is not in
        the data set.
        """
        check_names(class_names, force=self.config.force)
        known = set(class_names)
        if unknown := [name for name in self.by_class if name not in known]:
            shown = [_nearest(name, class_names) for name in unknown[:NAMED]]
            raise ConfigError(
                _report(f"{self.config.scenes}", [f"classes.{s}" for s in shown], len(unknown))
            )


def load_prompts(config: PromptConfig) -> Prompts:
    """The prompts of a configuration with the scene descriptions of its file. A relative path is
    one from the working directory.

    Raises ConfigError naming the file and every key whose rule is broken.
    """
    if config.scenes is None:
        return Prompts(config=config)
    value = _read(config.scenes)
    if not isinstance(value, dict):
        raise ConfigError(
            f"prompts.scenes = '{config.scenes}': a mapping with {' or '.join(PARTS)} is needed"
        )
    if problems := list(_problems(value)):
        raise ConfigError(_report(config.scenes, problems[:20], len(problems)))
    by_class = {
        name: tuple(map(_folded, texts)) for name, texts in value.get("classes", {}).items()
    }
    return Prompts(
        config=config, general=tuple(map(_folded, value.get("any", ()))), by_class=by_class
    )


def check_names(class_names: Iterable[str], *, force: bool) -> None:
    """Whether class names can stand in a prompt; `force` lets those pass that read like codes.

    Raises ConfigError naming some of those that cannot, and how to mend them.
    """
    names = list(class_names)
    mend = "give data.names=FILE.csv with the header `class,name` and a line for each"
    if broken := [name for name in names if not name.strip() or has_control(name)]:
        raise ConfigError(
            f"class names that are empty or hold a control character: {_some(broken)}; {mend}, or "
            "rename them"
        )
    if not force and (codes := [name for name in names if code_like(name)]):
        raise ConfigError(
            f"class names that read like codes, which no text encoder knows: {_some(codes)}; "
            f"{mend}, or prompts.force=true"
        )


def _folded(text: str) -> str:
    """Text on one line: YAML's blocks end with a line end that nobody means."""
    return " ".join(text.split())


class _Loader(yaml.BaseLoader):
    """Every scalar is text (`no` and `17` may be classes), and a key that stands twice is an
    error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        return _without_twice(self.construct_pairs(node, deep=True))


def _without_twice(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The mapping of a file, its keys as classes are compared."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError(f"key {key!r}: text is needed")
        if (name := same_name(key)) in found:
            raise ValueError(f"key {key!r} stands twice")
        found[name] = value
    return found


def _read(name: str) -> Any:
    try:
        check_regular(Path(name))
        text = Path(name).read_text(encoding="utf-8-sig")
        if name.lower().endswith(".json"):
            return json.loads(text, object_pairs_hook=_without_twice)
        return yaml.load(text, Loader=_Loader)
    except FileNotFoundError as error:
        raise ConfigError(f"prompts.scenes = '{name}': no such file in {Path.cwd()}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(
            f"prompts.scenes = '{name}': cannot be read: {' '.join(str(error).split())}"
        ) from error


def _problems(value: Mapping[str, Any]) -> Iterator[str]:
    for key in value:
        if key not in PARTS:
            near = difflib.get_close_matches(key, PARTS, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            yield f"{key}: unknown key; {hint}allowed: {', '.join(PARTS)}"
    if not set(value) & set(PARTS):
        yield f"no scene descriptions; give {' or '.join(PARTS)}"
    if "any" in value:
        yield from _list_problems("any", value["any"], general=True)
    if "classes" in value:
        classes = value["classes"]
        if not isinstance(classes, dict) or not classes:
            yield "classes: a mapping of class names to lists of descriptions is needed"
            return
        for name, texts in classes.items():
            yield from _list_problems(f"classes.{name}", texts, general=False)


def _list_problems(key: str, texts: Any, *, general: bool) -> Iterator[str]:
    if not isinstance(texts, list) or not texts:
        yield f"{key}: a list with at least one description is needed"
        return
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            yield f"{key}[{i}] = {str(text)[:60]}: text is needed"
        elif rule := broken_rule(_folded(text)):
            yield f"{key}[{i}] = {_folded(text)[:60]!r}: {rule}"
        elif len(_folded(text)) > LONGEST:
            yield f"{key}[{i}] = '{_folded(text)[:40]}…': {len(_folded(text))} characters, at most {LONGEST} are allowed"
        elif general and not placeholders(text):
            yield f"{key}[{i}] = '{_folded(text)[:60]}': needs {{name}}, because it is for every class"


def _nearest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    known = (
        f"did you mean {' or '.join(map(repr, near))}?"
        if near
        else f"classes are {_some(sorted(names))}"
    )
    return f"{name}: no such class in the data set; {known}"


def _some(names: Collection[str]) -> str:
    shown = ", ".join(map(repr, list(names)[:NAMED]))
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _report(file: str, problems: list[str], total: int) -> str:
    more = [f"and {total - len(problems)} more"] if total > len(problems) else []
    count = f"{total} problem{'s' if total > 1 else ''}"
    return "\n".join(
        [f"prompts.scenes = '{file}': {count}", *(f"  {p}" for p in (*problems, *more))]
    )
