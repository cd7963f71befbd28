"""Keys of earlier versions, read under the names they have now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALIASES: dict[str, str] = {}
"""Dotted keys of earlier versions -> what they are called now; read in every configuration, and
said in CHANGELOG."""


def renamed(plain: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """A nested configuration with its keys as they are called now; where both names are given, both
    stay."""
    values = dict(plain)
    for name, section in plain.items():
        if isinstance(section, Mapping):
            values[name] = dict(section)
    for old, new in aliases.items():
        old_part, old_key = old.split(".")
        new_part, new_key = new.split(".")
        before = values.get(old_part)
        if not isinstance(before, dict) or old_key not in before:
            continue
        after = values.get(new_part, {})
        if new_key in after:
            continue
        after[new_key] = before.pop(old_key)
        values[new_part] = after
    return values
