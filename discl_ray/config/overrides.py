"""`key=value` of the command line: each value is read by the types that its key may have."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from discl_ray.config.problems import is_section, report_of
from discl_ray.config.whole import Config
from discl_ray.errors import ConfigError
from discl_ray.process.calls import Call


def command_line() -> str:
    """What the user calls the place of overrides."""
    return "ARGS" if Call.this().targets else "the command line"


def read_overrides(overrides: Sequence[str]) -> DictConfig:
    """What `key=value` say, by key.

    Raises ConfigError naming those that cannot be read.
    """
    given = OmegaConf.create()
    problems: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            problems.append(f"'{override}': an override reads key=value, e.g. train.epochs=10")
            continue
        try:
            kinds = _kinds_at(key)
            value = _value(kinds, text)
            OmegaConf.update(given, key, value)
        except (TypeError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
            why = " ".join(str(error).split())
            problems.append(f"'{override}': cannot be read: {why}")
    if problems:
        raise ConfigError(report_of(command_line(), problems))
    return given


def _value(kinds: Sequence[Any], text: str) -> Any:
    """The text after the `=`, as a value of one of these types.

    Where text is needed it is the whole text: nothing in it is YAML but quotes around all of it,
    and `null` where a key may be null. In lists and mappings of texts every item is one. All else
    is YAML without comments.
    """
    some = [kind for kind in kinds if kind is not NoneType]
    may_be_null = len(some) < len(kinds)
    if some and may_be_null and text.strip() in ("", "null"):
        return None
    if some and all(map(_is_text, some)):
        return _unquoted(text)
    if _has_comment(text):
        return text
    if some and all(map(_holds_text, some)):
        return _all_text(text)
    # OmegaConf's own reading of an override: `1e-3` is a number, which plain YAML takes for text
    values = OmegaConf.from_dotlist([f"value={text}"])
    plain: Any = OmegaConf.to_container(values, resolve=False)
    return plain["value"]


def _all_text(text: str) -> Any:
    """YAML in which every value is text."""
    return yaml.load(text, yaml.BaseLoader)


def _unquoted(text: str) -> str:
    """A text without the quotes around all of it."""
    first, last = text[:1], text[-1:]
    if len(text) < 2 or first != last or first not in ("'", '"'):
        return text
    try:
        return _all_text(text)
    except yaml.YAMLError:
        return text


def _has_comment(text: str) -> bool:
    """Whether YAML would drop some of it."""
    node = yaml.compose(text)
    end = 0 if node is None else node.end_mark.index
    dropped = text[end:].strip()
    return dropped != ""


def _kinds_at(key: str) -> list[Any]:
    """The types a value may have by the field of a dotted key; of all data sets that have such a
    field."""
    kinds: list[Any] = [Config]
    for part in key.split("."):
        found: list[Any] = []
        for kind in kinds:
            found += _kinds_within(kind, part)
        kinds = found
    return kinds


def _kinds_within(kind: Any, name: str) -> list[Any]:
    """The types of a section's field, or of a mapping's values; none for what has no such name."""
    fields = kind.model_fields if is_section(kind) else {}
    if name in fields:
        return _members(fields[name].annotation)
    if get_origin(kind) is dict:
        _, values = get_args(kind)
        return _members(values)
    return []


def _members(annotation: Any) -> list[Any]:
    """The types of a union, one by one."""
    origin = get_origin(annotation)
    inner = get_args(annotation)
    if origin is Annotated:
        return _members(inner[0])
    if origin in (Union, UnionType):
        found: list[Any] = []
        for part in inner:
            found += _members(part)
        return found
    return [annotation]


def _is_text(kind: Any) -> bool:
    """Whether all values of a type are texts."""
    if get_origin(kind) is Literal:
        words = get_args(kind)
        return all(isinstance(word, str) for word in words)
    return kind is str


def _holds_text(kind: Any) -> bool:
    """Whether a type is a list or mapping of texts."""
    if get_origin(kind) not in (tuple, list, dict):
        return False
    parts: list[Any] = []
    for item in get_args(kind):
        if item is not Ellipsis:
            parts += _members(item)
    return all(map(_is_text, parts))
