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
from discl_ray.data.config import DATA_SETS, FilesConfig, OutsideConfig

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
    plain = [key for name in Config.model_fields if (key := _plain_key(name))]
    found = [Section("(top level)", "", tuple(plain))]
    for name, field in Config.model_fields.items():
        if name == "data":
            found += _data_sections()
        elif isinstance(field.default, Settings):
            kind = type(field.default)
            found.append(Section(name, _first(kind.__doc__), tuple(_keys(kind, name))))
    return found


def _plain_key(name: str) -> Key | None:
    field = Config.model_fields[name]
    return (
        None if isinstance(field.default, Settings) else _key(name, field, _meaning(Config, name))
    )


def _data_sections() -> Iterator[Section]:
    """What all data sets of files share is listed once."""
    shared = set(FilesConfig.model_fields) - {"name"}
    keys = tuple(key for key in _keys(FilesConfig, "data") if key.name != "data.name")
    yield Section("data (all data sets in files)", _first(FilesConfig.__doc__), keys)
    for name, kind in {**DATA_SETS, "module:function": OutsideConfig}.items():
        own = [
            key
            for key in _keys(kind, "data")
            if not issubclass(kind, FilesConfig) or _differs(kind, key.name, shared)
        ]
        named = [key for key in own if key.name != "data.name"]
        yield Section(f"data with data.name={name}", _first(kind.__doc__), tuple(named))


def _differs(kind: type[Settings], key: str, shared: set[str]) -> bool:
    """Whether a data set has a key of its own, or another default for one that all have."""
    name = key.removeprefix("data.").partition(".")[0]
    if name not in shared:
        return True
    return kind.model_fields[name].default != FilesConfig.model_fields[name].default


def _keys(kind: type[Settings], path: str) -> Iterator[Key]:
    """Keys of a section; those of a section within follow in its place."""
    for name, field in kind.model_fields.items():
        if isinstance(field.default, Settings):
            yield from _keys(type(field.default), f"{path}.{name}")
        else:
            yield _key(f"{path}.{name}", field, _meaning(kind, name))


def _meaning(kind: type[Settings], name: str) -> str:
    """A field's docstring, or that of the field it overrides."""
    parents = [base for base in kind.__mro__ if issubclass(base, Settings)]
    fields = [base.model_fields[name] for base in parents if name in base.model_fields]
    found = next((field.description for field in fields if field.description), "")
    return " ".join((found or "").split())


def _key(name: str, field: FieldInfo, meaning: str) -> Key:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return Key(
        name=name,
        kind=_kind_words(field.annotation, field.metadata) + _bounds(field.metadata),
        default=_default(field),
        execution=extra.get("kind") == "execution",
        meaning=meaning,
    )


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "{}"
    if field.default is PydanticUndefined:
        return ""
    return _value(field.default)


def _value(value: Any) -> str:
    """A default as it is written behind the `=`."""
    if isinstance(value, bool | NoneType):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(_value(part) for part in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value) or "''"


def _kind_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The type of a value, in words; a text that names a function says which there are."""
    named = [part for part in metadata if isinstance(part, OneOf)]
    if named:
        return f"{', '.join(named[0].names)}, or module:function"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind_words(inner[0], inner[1:])
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_kind_words(part) for part in inner))
    if origin is tuple:
        parts = [_kind_words(part) for part in inner if part is not Ellipsis]
        return f"list of {parts[0]}" if Ellipsis in inner else f"[{', '.join(parts)}]"
    if origin is dict or annotation is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return f"section ({', '.join(annotation.model_fields)})"
    return NAMES.get(annotation, "any value")


SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def _bounds(metadata: Sequence[Any]) -> str:
    """Limits of a number, as they are written behind its type."""
    found: list[str] = []
    for part in metadata:
        for name, sign in SIGNS.items():
            limit = getattr(part, name, None)
            found += [] if limit is None else [f"{sign} {limit:g}"]
    return f" {', '.join(found)}" if found else ""


def _first(text: str | None) -> str:
    return " ".join((text or "").split())


def as_text(width: int = 100) -> str:
    """All keys for `--help`; an execution key is marked by a star."""
    lines = [
        "keys (key=value overrides the files of --config; * changes nothing that is made, so a run",
        "goes on with another value; all other keys are part of a run's name):",
    ]
    for section in sections():
        title = f"{section.title}: {section.meaning}" if section.meaning else section.title
        lines += ["", *textwrap.wrap(title, width)]
        for key in section.keys:
            mark = "*" if key.execution else " "
            given = f"= {key.default}" if key.default else "(must be given)"
            head = f"{mark} {key.name} {given}"
            lines.append(f"  {head}")
            body = f"{key.kind}. {key.meaning}".rstrip()
            lines += textwrap.wrap(body, width, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


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
    default = f"`{key.default}`" if key.default else "must be given"
    kind = "execution" if key.execution else "identity"
    cells = (f"`{key.name}`", default, key.kind, kind, key.meaning)
    escaped = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(as_markdown(), "utf-8")
