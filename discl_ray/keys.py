"""Every key of the configuration, with type, default and meaning, read from the config classes.

python -m discl_ray.keys docs/configuration.md     writes the page that lists them
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from discl_ray.config import Config
from discl_ray.core.settings import OneOf, Settings
from discl_ray.data.config import DATA_SETS, AnyDataConfig, FilesConfig, OutsideConfig

PAGE_COMMAND = "python -m discl_ray.keys docs/configuration.md"

NAMES = {int: "integer", float: "number", bool: "true or false", str: "text", NoneType: "null"}


class Key(NamedTuple):
    """One key."""

    name: str
    """Dotted."""
    kind: str
    """What values it takes, in words."""
    default: str
    """As YAML; empty for a key that must be given."""
    execution: bool
    """Whether it changes nothing that is made."""
    meaning: str


class Section(NamedTuple):
    """Keys that belong together."""

    title: str
    meaning: str
    keys: tuple[Key, ...]


def sections() -> list[Section]:
    """All keys, in the order of the path; of `data` those of each data set."""
    plain: list[Key] = []
    found: list[Section] = []
    for name, field in Config.model_fields.items():
        if name == "data":
            found += _data_sections()
        elif isinstance(field.default, Settings):
            kind = type(field.default)
            keys = tuple(_keys(kind, name))
            meaning = _one_line(kind.__doc__)
            found.append(Section(name, meaning, keys))
        else:
            meaning = _meaning(Config, name)
            plain.append(_key(name, field, meaning))
    top = Section("(top level)", "", tuple(plain))
    return [top, *found]


def _data_sections() -> Iterator[Section]:
    """What all data sets of files share is listed once."""
    kinds: dict[str, type[AnyDataConfig]] = {**DATA_SETS, "module:function": OutsideConfig}
    shared = _data_keys(FilesConfig)
    meaning = _one_line(FilesConfig.__doc__)
    yield Section("data (all data sets in files)", meaning, tuple(shared))
    for name, kind in kinds.items():
        keys = _data_keys(kind)
        if issubclass(kind, FilesConfig):
            keys = [key for key in keys if _differs(kind, key.name)]
        meaning = _one_line(kind.__doc__)
        yield Section(f"data with data.name={name}", meaning, tuple(keys))


def _data_keys(kind: type[AnyDataConfig]) -> list[Key]:
    """Keys of a data set but its name, which the section's title says."""
    return [key for key in _keys(kind, "data") if key.name != "data.name"]


def _differs(kind: type[Settings], key: str) -> bool:
    """Whether a data set has a key of its own, or another default for one that all have."""
    name = key.removeprefix("data.").partition(".")[0]
    shared = FilesConfig.model_fields.get(name)
    if shared is None:
        return True
    own = kind.model_fields[name]
    return own.default != shared.default


def _keys(kind: type[Settings], path: str) -> Iterator[Key]:
    """Keys of a section; those of a section within follow in its place."""
    for name, field in kind.model_fields.items():
        dotted = f"{path}.{name}"
        if isinstance(field.default, Settings):
            section = type(field.default)
            yield from _keys(section, dotted)
        else:
            meaning = _meaning(kind, name)
            yield _key(dotted, field, meaning)


def _meaning(kind: type[Settings], name: str) -> str:
    """A field's docstring, or that of the field it overrides."""
    for base in kind.__mro__:
        if not issubclass(base, Settings):
            continue
        field = base.model_fields.get(name)
        if field is not None and field.description:
            return _one_line(field.description)
    return ""


def _key(name: str, field: FieldInfo, meaning: str) -> Key:
    """A key as it is listed."""
    extra = field.json_schema_extra
    kind = _kind_words(field.annotation, field.metadata)
    bounds = _bounds(field.metadata)
    return Key(
        name=name,
        kind=f"{kind}{bounds}",
        default=_default(field),
        execution=isinstance(extra, dict) and extra.get("kind") == "execution",
        meaning=meaning,
    )


def _default(field: FieldInfo) -> str:
    """A key's default as YAML; empty if it must be given."""
    if field.default_factory is not None:
        return "{}"
    if field.default is PydanticUndefined:
        return ""
    return _value(field.default)


def _value(value: Any) -> str:
    """A default as it is written behind the `=`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        parts = ", ".join(_value(part) for part in value)
        return f"[{parts}]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) or "''"


def _kind_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The type of a value, in words; a text that names a function says which there are."""
    for part in metadata:
        if isinstance(part, OneOf):
            builtin = ", ".join(part.names)
            return f"{builtin}, or module:function"
    origin = get_origin(annotation)
    inner = get_args(annotation)
    if origin is Annotated:
        kind, *more = inner
        return _kind_words(kind, more)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin in (Union, UnionType):
        parts = map(_kind_words, inner)
        return " or ".join(dict.fromkeys(parts))
    if origin is tuple:
        return _tuple_words(inner)
    if origin is dict or annotation is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        names = ", ".join(annotation.model_fields)
        return f"section ({names})"
    return NAMES.get(annotation, "any value")


def _tuple_words(inner: Sequence[Any]) -> str:
    """The type of a tuple in words, given what is in its brackets."""
    if Ellipsis in inner:
        items = _kind_words(inner[0])
        return f"list of {items}"
    parts = ", ".join(map(_kind_words, inner))
    return f"[{parts}]"


SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def _bounds(metadata: Sequence[Any]) -> str:
    """Limits of a number, as they are written behind its type."""
    found: list[str] = []
    for part in metadata:
        for name, sign in SIGNS.items():
            limit = getattr(part, name, None)
            if limit is not None:
                found.append(f"{sign} {limit:g}")
    limits = ", ".join(found)
    return f" {limits}" if limits else ""


def _one_line(text: str | None) -> str:
    """A docstring without its line breaks."""
    words = (text or "").split()
    return " ".join(words)


def as_text(width: int = 100) -> str:
    """All keys for `--help`; an execution key is marked by a star."""
    lines = [
        "keys (key=value overrides the files of --config; * changes nothing that is made, so a run",
        "goes on with another value; all other keys are part of a run's name):",
    ]
    for section in sections():
        title = section.title
        if section.meaning:
            title += f": {section.meaning}"
        lines.append("")
        lines += textwrap.wrap(title, width)
        for key in section.keys:
            lines += _key_lines(key, width)
    return "\n".join(lines)


def _key_lines(key: Key, width: int) -> list[str]:
    """A key in the list of `--help`, its meaning indented below it."""
    mark = "*" if key.execution else " "
    given = f"= {key.default}" if key.default else "(must be given)"
    body = f"{key.kind}. {key.meaning}".rstrip()
    indent = " " * 8
    wrapped = textwrap.wrap(body, width, initial_indent=indent, subsequent_indent=indent)
    return [f"  {mark} {key.name} {given}", *wrapped]


def as_markdown() -> str:
    """The page `docs/configuration.md`."""
    lines = [
        "# Every key of the configuration",
        "",
        f"Made from the code by `{PAGE_COMMAND}`; `discl-ray train --help` prints the same list.",
        "",
        "Keys come from YAML files (`--config`, each over the one before) and from `key=value` on "
        "the command line. An *identity* key decides what is made and is part of a run's name. An "
        "*execution* key decides how: a run goes on with another value.",
    ]
    for section in sections():
        lines += ["", f"## {section.title}", ""]
        if section.meaning:
            lines += [section.meaning, ""]
        if section.keys:
            lines += ["| key | default | values | kind | meaning |", "|---|---|---|---|---|"]
            lines += map(_row, section.keys)
    return "\n".join(lines) + "\n"


def _row(key: Key) -> str:
    """A key's row of the page's table."""
    name = f"`{key.name}`"
    default = f"`{key.default}`" if key.default else "must be given"
    kind = "execution" if key.execution else "identity"
    cells = (name, default, key.kind, kind, key.meaning)
    escaped = [cell.replace("|", r"\|") for cell in cells]
    row = " | ".join(escaped)
    return f"| {row} |"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(as_markdown(), "utf-8")
