"""Why there is no complete spectrum for a configuration: who is making it, how far it is, or which one is nearest and how it differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from discl_ray.calls import advice, again
from discl_ray.config import PHASE_1, Config
from discl_ray.core.settings import identity
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.run import MANIFEST, holder

CONFIG, PLAN = "config.yaml", "plan.parquet"

NAMED = 6
"""Keys a message names."""


def describe_nearest(generated: Store, wanted: Config) -> str:
    """What there is instead of a complete spectrum, and what to do, in words that follow a semicolon."""
    who = holder(generated)
    if who:
        return f"{who} is making it: wait for it, then {again()}"
    if generated.exists(PLAN):
        return f"{len(generated.list('commits', '.json'))} shards of it are committed: {advice('generate')}, which goes on"
    beside = Store(generated.filesystem, generated.base.rpartition("/")[0])
    found: dict[str, dict[str, tuple[Any, Any]]] = {}
    for folder in beside.folders():
        recorded = _recorded(beside.within(folder)) if folder.startswith("generate-") else None
        if recorded is not None:
            found[folder] = differences(recorded, wanted)
    if not found:
        return advice("generate")
    nearest = min(found, key=lambda folder: (len(found[folder]), folder))
    return f"the nearest is {nearest}, {_said(found[nearest])}; use that configuration, or {advice('generate')}"


def differences(there: Config, wanted: Config) -> dict[str, tuple[Any, Any]]:
    """Keys that decide a spectrum, of which two configurations have other values: (there, wanted)."""
    old, new = (_flat({part: plain[part] for part in ("data", *PHASE_1)}) for plain in map(identity, (there, wanted)))
    return {key: (old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}


def _recorded(run: Store) -> Config | None:
    """The configuration of a complete spectrum; None for one that is not complete, or that this version cannot read."""
    if not (run.exists(MANIFEST) and run.exists(CONFIG)):
        return None
    try:
        with run.reading(CONFIG):
            return Config.model_validate(yaml.safe_load(run.read(CONFIG)))
    except (IntegrityError, ValidationError, yaml.YAMLError):
        return None


def _said(differing: Mapping[str, tuple[Any, Any]]) -> str:
    if not differing:
        return "made with the same configuration from other images, models or class names"
    shown = [f"{key} ({_value(old)} there, {_value(new)} here)" for key, (old, new) in list(differing.items())[:NAMED]]
    more = f" and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
    return f"which differs in {', '.join(shown)}{more}"


def _value(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{path}.{key}" if path else key
        found |= _flat(inner, name) if isinstance(inner, Mapping) else {name: inner}
    return found
