"""Functions from outside the package: readers, strategies and filters that a configuration names.

    data.name=my_package.reader:read       a function of a module that Python can import
    data.name=my_reader                    an entry point that an installed package registers

Groups of entry points: READERS, STRATEGIES, FILTERS. Nothing is imported before the function is
needed, so a configuration with such a name can be read where the function is not installed.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from discl_ray.core.ids import file_hash
from discl_ray.errors import ConfigError

PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
"""`module:function`; neither is looked up to see whether a text reads so."""


@dataclass(frozen=True)
class Group:
    """One kind of function that can come from outside."""

    key: str
    """The key of the configuration that names it."""
    entry_points: str
    """The group under which packages register it."""

    def registered(self) -> dict[str, EntryPoint]:
        """Entry points by name."""
        return registered_in(self.entry_points)

    def knows(self, name: str) -> bool:
        """Whether a name reads `module:function` or is registered."""
        return PATH.fullmatch(name) is not None or name in self.registered()

    def load(self, name: str) -> Callable[..., Any]:
        """The function of a name.

        Raises ConfigError if its module cannot be imported or has no such function.
        """
        entry = self._entry(name)
        named = f"{self.key} = '{name}'"
        module = _imported(entry.module, named)
        found: Any = module
        for attribute in entry.attr.split("."):
            if not hasattr(found, attribute):
                raise ConfigError(f"{named}: module '{entry.module}' has no '{entry.attr}'")
            found = getattr(found, attribute)
        if not callable(found):
            kind = type(found).__name__
            raise ConfigError(f"{named}: is a {kind}, not a function")
        return found

    def fingerprint(self, name: str) -> str:
        """Hash of the file the function is in, so that what an edited one makes has another name.

        Empty if Python does not say which file that is. What the file imports is not part of it.
        """
        self.load(name)
        module = self._entry(name).module
        file = getattr(sys.modules[module], "__file__", None)
        # One in a zip archive has a path, and no file of its own.
        if file and Path(file).is_file():
            return file_hash(Path(file))
        return ""

    def _entry(self, name: str) -> EntryPoint:
        """Where a name's function is; raises ConfigError for a name that nobody knows."""
        entry = self.registered().get(name)
        if entry is None and PATH.fullmatch(name) is None:
            why = unknown((), self)
            raise ConfigError(f"{self.key} = '{name}': {why}")
        return entry or EntryPoint(name, name, self.entry_points)


READERS = Group("data.name", "discl_ray.readers")

STRATEGIES = Group("curriculum.strategy", "discl_ray.strategies")

FILTERS = Group("filter.mode", "discl_ray.filters")


def unknown(builtin: tuple[str, ...], group: Group) -> str:
    """The end of a message about an unknown name: the names that are allowed instead."""
    names = [*builtin, *sorted(group.registered()), "module:function"]
    allowed = ", ".join(names)
    return f"is unknown and no entry point of {group.entry_points}; allowed: {allowed}"


@cache
def registered_in(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name; installed packages are searched once a process."""
    return {entry.name: entry for entry in entry_points(group=group)}


def _imported(module: str, named: str) -> Any:
    """A module; the working directory counts as a place where Python looks, and comes last."""
    here = os.getcwd()
    if here not in sys.path:  # a console command looks in its own folder instead
        sys.path.append(here)
    try:
        return importlib.import_module(module)
    except Exception as error:  # a module may raise anything when it is imported
        one_line = " ".join(str(error).split())
        why = f"{type(error).__name__}: {one_line}"
        raise ConfigError(
            f"{named}: module '{module}' cannot be imported ({why}); it must lie in the working "
            "directory, on PYTHONPATH, or be installed"
        ) from error
