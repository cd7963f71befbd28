"""The base of every config: frozen, strict about names, each field marked as identity or execution.

*Identity* fields decide what is made and enter a run's hash; *execution* fields (workers, micro-batch, paths) decide how, and a
run may be continued with others. A field is identity unless it says otherwise.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticUndefined


class Settings(BaseModel):
    """Frozen pydantic model; unknown keys are errors; attribute docstrings become descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def execution(default: Any = PydanticUndefined, **constraints: Any) -> Any:
    """A field that does not change what is made."""
    return Field(default, json_schema_extra={"kind": "execution"}, **constraints)


def identity(settings: Settings) -> dict[str, Any]:
    """The identity fields of a config, nested, as plain values."""
    plain: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("kind") == "execution":
            continue
        value = getattr(settings, name)
        plain[name] = identity(value) if isinstance(value, Settings) else settings.model_dump(mode="json", include={name})[name]
    return plain
