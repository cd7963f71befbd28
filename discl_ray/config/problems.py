"""What is wrong with a configuration, in sentences that name key, value and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, get_args

from pydantic import BaseModel, ValidationError

from discl_ray.config.whole import Config
from discl_ray.data.config import DATA_SETS, OUTSIDE, FilesConfig, OutsideConfig

TAGS = (*DATA_SETS, OUTSIDE)
"""What an error's location holds for the kind of data set."""


FEW = 3
"""Sections with the same key that a message names."""


def sentences(error: ValidationError) -> list[str]:
    """What is wrong with a configuration, a sentence each."""
    return [sentence_of(problem) for problem in error.errors()]


def report_of(path: str, problems: Sequence[str]) -> str:
    """Problems as one text under the name of what has them."""
    number = len(problems)
    plural = "s" if number > 1 else ""
    lines = [f"{path}: {number} problem{plural} in the configuration"]
    lines += [f"  {problem}" for problem in problems]
    return "\n".join(lines)


def is_section(kind: Any) -> TypeGuard[type[BaseModel]]:
    """Whether a type is a section of the configuration."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def place_of(error: Any) -> list[Any]:
    """The keys that lead to what is wrong, given an error of pydantic."""
    keys = list(error["loc"])
    section, tag = keys[:1], keys[1:2]
    if section == ["data"] and tag and tag[0] in TAGS:
        del keys[1]  # no key: pydantic says here which kind of data set it took
    return keys


def sentence_of(error: Any) -> str:
    """An error of pydantic as a sentence."""
    keys = map(str, place_of(error))
    path = ".".join(keys) or "(whole)"
    kind = error["type"]
    given = error["input"]
    if kind == "data_set":
        said = error["ctx"]
        return f"{path}.name = {said['name']!r}: {said['allowed']}"
    if kind == "extra_forbidden":
        why = _unknown_key(error["loc"])
        return f"{path} = {given!r}: {why}"
    if kind in ("tuple_type", "list_type"):
        return f"{path} = {given!r}: a list is needed, e.g. {_as_list(given)}"
    if kind == "dict_type":
        return f"{path} = {given!r}: a mapping is needed, {{key: value}}"
    if kind == "missing":  # of all keys, only folders of data sets have no default
        return f"{path}: has no default and is needed, e.g. {path}=/path/to/images"
    message = error["msg"].removeprefix("Value error, ")
    lowered = message[0].lower() + message[1:]
    if isinstance(given, Mapping | BaseModel):
        return f"{path}: {lowered}"
    return f"{path} = {given!r}: {lowered}"


def _as_list(given: Any) -> str:
    """How the value, or values separated by commas, would be written as a list."""
    items = [item.strip() for item in str(given).split(",")]
    return f"[{', '.join(items)}]"


def _unknown_key(location: tuple[str | int, ...]) -> str:
    """What to say of a key that its section does not have."""
    section = location[0]
    name = str(location[-1])
    if section == "data" and name in FilesConfig.model_fields:  # all others have this field
        return (
            f"data.name = {location[1]}, which comes with the "
            "package; name the file of your data set: --config conf/imagefolder.yaml (class "
            "folders), conf/manifest.yaml (a list of files), or another of conf/*.yaml; with make, "
            "CONF=conf/imagefolder.yaml"
        )
    model = _model_at(location[:-1])
    names = list(model.model_fields)
    allowed = ", ".join(names)
    near = difflib.get_close_matches(name, names, n=1)
    if model is Config:
        near = near or _with_section(name)
    hint = ""
    if near:
        meant = "' or '".join(near)
        hint = f"did you mean '{meant}'? "
    return f"unknown key; {hint}allowed: {allowed}"


def _with_section(name: str) -> list[str]:
    """A key after its section, for each that has it; none if there are too many to choose from."""
    found: list[str] = []
    for section in Config.model_fields:
        models = _models_of(Config, section)
        if section == "data":
            models = [*DATA_SETS.values(), OutsideConfig]
        if any(name in model.model_fields for model in models):
            found.append(f"{section}.{name}")
    return found if len(found) <= FEW else []


def _model_at(location: tuple[str | int, ...]) -> type[BaseModel]:
    """The section at an error's location, or the innermost one on the way to it."""
    model: type[BaseModel] = Config
    for part in location:
        models = _models_of(model, str(part))
        if model is Config and part == "data":  # a union: the location's next part is the tag
            models = _data_models(location)
        if models:
            model = models[0]
        elif part not in TAGS:
            break
    return model


def _data_models(location: tuple[str | int, ...]) -> list[type[BaseModel]]:
    """The kind of data set that a location within `data` names; none if it ends before."""
    if len(location) < 2:
        return []
    tag = str(location[1])
    return [DATA_SETS.get(tag, OutsideConfig)]


def _models_of(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    """The sections that a field may hold."""
    field = model.model_fields.get(name)
    if field is None:
        return []
    kinds = [field.annotation, *get_args(field.annotation)]
    return [kind for kind in kinds if is_section(kind)]
