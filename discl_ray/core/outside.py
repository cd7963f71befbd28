"""Functions from outside the package: readers, strategies and filters that a configuration names.

    data.name=my_package.reader:read       a function of a module that Python can import
    data.name=my_reader                    an entry point that an installed package registers

Groups of entry points: READERS, STRATEGIES, FILTERS. Nothing is imported before the function is
needed, so a configuration with such a name can be read where the function is not installed.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType
from typing import Any

from discl_ray.core.ids import file_hash
from discl_ray.errors import ConfigError, DisclError, trouble_of_store
from discl_ray.process.stopping import Stopped

PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
"""`module:function`; neither is looked up to see whether a text reads so."""

PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
"""Begins the path of every file of this package."""

LONGEST = 300
"""Characters of an error's own words that are shown; a library's may fill pages."""


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


@contextmanager
def calling(named: str, function: Callable[..., Any]) -> Generator[None]:
    """What a function from outside raises becomes a ConfigError of one line, with its place.

    `named` is its key and value. An error of ours passes as it is, and so does what stops the job.
    """
    try:
        yield
    except (DisclError, Stopped):
        raise
    except SystemExit as error:
        if _of_ray(error):
            raise
        why = "ended the program (SystemExit); a function from outside must return"
        raise ConfigError(f"{named}: {why} ({_place_of(error, function)})") from error
    except Exception as error:  # it may raise anything
        if isinstance(error, OSError) and trouble_of_store(str(error)):
            raise  # has a remedy of its own
        place = _place_of(error, function)
        raise ConfigError(f"{named}: raised {_words_of(error)} ({place})") from error


def _of_ray(error: SystemExit) -> bool:
    """Whether Ray ends this worker: it raises this in whatever the worker does at that moment."""
    return hasattr(error, "ray_terminate_msg")


def _words_of(error: BaseException) -> str:
    """An error's type and message on one line."""
    one_line = " ".join(str(error).split())[:LONGEST]
    kind = type(error).__name__
    return f"{kind}: {one_line}" if one_line else kind


def _place_of(error: BaseException, function: Callable[..., Any]) -> str:
    """Where it was raised: the innermost line of the function's own file, or of another that is
    not this package's. Where the function begins if it was not even entered.
    """
    code = _code_of(function)
    lines: list[tuple[str, int]] = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith(PACKAGE):
            lines.append((file, line))
    own = [(file, line) for file, line in lines if code and file == code.co_filename]
    found = own or lines
    if found:
        file, line = found[-1]
        return f"{file}, line {line}"
    if code:
        return f"defined in {code.co_filename}, line {code.co_firstlineno}"
    return f"in {function!r}"


def _code_of(function: Callable[..., Any]) -> CodeType | None:
    """The code of a function or of what it wraps; None if that is not Python's."""
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = type(inner).__call__  # an object that can be called
    return getattr(inspect.unwrap(inner), "__code__", None)


def _imported(module: str, named: str) -> Any:
    """A module; the working directory counts as a place where Python looks, and comes last."""
    here = os.getcwd()
    if here not in sys.path:  # a console command looks in its own folder instead
        sys.path.append(here)
    try:
        return importlib.import_module(module)
    except Stopped:
        raise
    except SystemExit as error:
        if _of_ray(error):
            raise
        raise ConfigError(
            f"{named}: the module ended the program when it was imported (SystemExit); "
            'put what it does as a script under: if __name__ == "__main__":'
        ) from error
    except Exception as error:  # a module may raise anything when it is imported
        raise ConfigError(
            f"{named}: module '{module}' cannot be imported ({_words_of(error)}); it must lie in "
            "the working directory, on PYTHONPATH, or be installed"
        ) from error
