"""Whether the files of a run's folder hold what they should; a damaged one is written again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import yaml

from discl_ray.core.columns import Column, member
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError

log = logging.getLogger(__name__)

REWRITTEN = "is cut short or garbled, and written again"


def is_sound(store: Store, name: str) -> bool:
    """Whether a file is there and whole; logs it where it is not whole."""
    if not store.exists(name):
        return False
    sound = store.sound(name)
    if not sound:
        log.info("%s: %s", store.location(name), REWRITTEN)
    return sound


def holds_values(store: Store, name: str, values: Mapping[str, Any]) -> bool:
    """Whether a JSON file is there and holds some values, perhaps among others."""
    if not is_sound(store, name):
        return False
    content = store.read_json(name)
    return isinstance(content, dict) and {**content, **values} == content


def holds_mapping(store: Store, name: str) -> bool:
    """Whether a YAML file is there and holds a mapping."""
    try:
        return store.exists(name) and isinstance(yaml.safe_load(store.read(name)), dict)
    except (yaml.YAMLError, ValueError):
        return False


def holds(store: Store, name: str, table: pa.Table) -> bool:
    """Whether a file is there and holds a table; logs it where it holds another one.

    Columns that an earlier version wrote it without are not compared.
    """
    if not is_sound(store, name):
        return False
    stored = store.read_table(name)
    comparable = set(stored.column_names) <= set(table.column_names)
    if comparable and stored.equals(table.select(stored.column_names)):
        return True
    log.info("%s: %s", store.location(name), REWRITTEN)
    return False


def holds_samples(store: Store, name: str, samples: pa.Table) -> bool:
    """Whether a file is there and holds SAMPLES; logs it where it holds others.

    Of the images their paths are compared. Bytes are not read: whoever reads them compares their
    checksums.
    """
    if not store.exists(name):
        return False
    names = [column for column in samples.column_names if column != "image"]
    try:
        stored = store.read_table(name, [*names, "image.path"])
        same = stored.select(names).equals(samples.select(names)) and _paths(stored).equals(
            _paths(samples)
        )
    except IntegrityError:
        same = False
    if not same:
        log.info("%s: %s", store.location(name), REWRITTEN)
    return same


def _paths(samples: pa.Table) -> Column:
    """The paths of a column of images."""
    return member(samples["image"], "path")
