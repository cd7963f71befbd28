"""The base of every config: frozen, strict about names, each field marked as identity or execution.

*Identity* fields decide what is made and enter a run's hash; *execution* fields (workers,
micro-batch, paths) decide how, and a run may be continued with others. A field is identity unless
it says otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationInfo,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticUndefined, core_schema

from discl_ray.core.outside import Group, unknown

Location = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, a URI, or a name that may be a path as well. `~` at its beginning is the home folder."""


class Settings(BaseModel):
    """Frozen pydantic model; unknown keys are errors; attribute docstrings become descriptions."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


RECORDED = {"recorded": True}
"""Validation context of a recorded configuration: names that are not registered here are valid."""


@dataclass(frozen=True)
class OneOf:
    """Annotation of a text: one of these names, or a function from outside."""

    names: tuple[str, ...]
    group: Group

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Lets pydantic check the name."""
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def _check(self, name: str, info: ValidationInfo) -> str:
        if name in self.names or self.group.knows(name) or info.context:
            return name
        raise ValueError(unknown(self.names, self.group))


def check_options(options: dict[str, Any], name: object, builtin: Sequence[str]) -> dict[str, Any]:
    """Options of a function from outside; raises ValueError where a builtin one is chosen."""
    if options and name in builtin:
        raise ValueError(f"has no effect with '{name}'; options are for a function of your own")
    return options


def execution(default: Any = PydanticUndefined, **constraints: Any) -> Any:
    """A field that does not change what is made."""
    return Field(default, json_schema_extra={"kind": "execution"}, **constraints)


def added(default: Any = PydanticUndefined, *, before: Any, **constraints: Any) -> Any:
    """An identity field that runs made earlier do not have.

    `before` is the value, as JSON, that they were made with. The field enters a hash only where it
    differs from it, so those runs keep their names.
    """
    return Field(default, json_schema_extra={"kind": "identity", "before": before}, **constraints)


def implied(*, before: Any, **constraints: Any) -> Any:
    """An identity field that is null by default, where it had a default value in earlier versions.

    Null enters a hash as that value, `before`, as JSON: those runs keep their names.
    """
    extra = {"kind": "identity", "null_is": before}
    return Field(None, json_schema_extra=extra, **constraints)


def with_values_before(kind: type[Settings], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config, nested, with the implicit values of fields `added` since then."""
    known = dict(recorded)
    for name, field in kind.model_fields.items():
        extra = _extra(field)
        if "before" in extra:
            known.setdefault(name, extra["before"])
        value = known.get(name)
        kinds = _settings_of(field.annotation)
        if kinds and isinstance(value, Mapping):
            inner = cast("Mapping[str, Any]", value)
            known[name] = with_values_before(named(kinds, inner.get("name")), inner)
    return known


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    """What `execution` and `added` note of a field."""
    extra: Any = field.json_schema_extra
    return cast("dict[str, Any]", extra) if isinstance(extra, dict) else {}


def named(kinds: Sequence[type[Settings]], name: object) -> type[Settings]:
    """Of the configs of a union the one whose `name` it is; the last is the one for other names."""
    for kind in kinds[:-1]:
        if kind.model_fields["name"].default == name:
            return kind
    return kinds[-1]


def _settings_of(annotation: Any) -> list[type[Settings]]:
    """The configs among the types of an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    found: list[type[Settings]] = []
    for part in get_args(annotation):
        found.extend(_settings_of(part))
    return found


def identity(settings: Settings) -> dict[str, Any]:
    """The identity fields of a config, nested, as plain values.

    `added` ones are left out where they have the value of before.
    """
    plain: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        extra = _extra(field)
        if extra.get("kind") == "execution":
            continue
        value = getattr(settings, name)
        shown = (
            identity(value)
            if isinstance(value, Settings)
            else settings.model_dump(mode="json", include={name})[name]
        )
        if "before" in extra and shown == extra["before"]:
            continue
        if "null_is" in extra and shown is None:
            shown = extra["null_is"]
        plain[name] = shown
    return plain


def _whole(value: Any) -> Any:
    # True is an int in Python, and would count as 1.
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("auto, or a whole number of at least 1, is needed")


def _share(value: Any) -> Any:
    if value == "auto" or (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    ):
        return value
    raise ValueError(
        "auto, or a number from 0 (the CPU) to 1 (a whole GPU), is needed; "
        "more GPUs are more actors"
    )


def _yes_or_no(value: Any) -> Any:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError("auto, true or false is needed")


Count = Annotated[int | Literal["auto"], BeforeValidator(_whole)]
"""How many processes; `auto` takes what there is."""

Share = Annotated[float | Literal["auto"], BeforeValidator(_share)]
"""Part of a GPU that a process reserves."""

Switch = Annotated[bool | Literal["auto"], BeforeValidator(_yes_or_no)]
