"""Many paths under a root, checked by columns: only unusual ones are looked at one by one.

A path is unusual by its text (blanks at its ends, accents, `..`, a backslash) or by its file (a
link, a pipe). Which files are is found by listing their folders, which costs no request a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from discl_ray.core.arrays import Bools
from discl_ray.core.columns import (
    Column,
    as_dictionary,
    as_numpy,
    both,
    fill_null,
    is_in,
    lengths,
    matches,
    negate,
    replace_matches,
    replace_where,
    smaller,
)
from discl_ray.core.storage import Store
from discl_ray.data.root import LONGEST, escapes, guard, leads_out
from discl_ray.data.wording import readable

UNUSUAL = "|".join(
    (
        r"^$",
        r"^[ /]|[ /]$",  # absolute, a folder, blanks at the ends
        r"//|(^|/)\.{1,2}(/|$)",  # not normalised
        r"[\\:]",  # Windows, a URI
        r"[^ -~]",  # control characters, and what may be spelt in two ways
    )
)
"""Texts of paths that `guard` may refuse or change."""

FEW = 1_000
"""Files of a folder that are always listed."""

TIMES = 50
"""Files of a folder that are listed at most, for each that is asked for; beyond that, a request a
file costs less."""

Refuse = Callable[[int, str, ValueError], None]
"""Is told of a row, its path and why it is refused."""


def guarded(root: Store, paths: Column, refuse: Refuse) -> Column:
    """`guard` of every path, where links are allowed; null for what is refused."""
    paths = fill_null(paths, "")
    usual = both(negate(matches(paths, UNUSUAL)), smaller(lengths(paths), LONGEST + 1))
    unusual = ~as_numpy(usual) | odd_files(root, paths)
    if not unusual.any():
        return paths
    found: list[str | None] = []
    for row in np.flatnonzero(unusual).tolist():
        path = paths[row].as_py()
        try:
            found.append(guard(root, path, links=True))
        except ValueError as error:
            refuse(row, path, error)
            found.append(None)
    return replace_where(paths, pa.array(unusual), pa.array(found, pa.string()))


def leading_out(root: Store, paths: Column) -> Bools:
    """Which of some guarded paths leave the root by a symbolic link; shape (paths,)."""
    out = np.zeros(len(paths), bool)
    if root.local is None:
        return out
    known: set[str] = set()
    folders = as_dictionary(folder_column(paths))
    linked = [escapes(root.base, f"{name}/-", known) for name in folders.dictionary.to_pylist()]
    inside_linked = pa.array(linked, pa.bool_()).take(folders.indices)
    doubtful = as_numpy(inside_linked) | odd_files(root, paths)
    for row in np.flatnonzero(doubtful).tolist():
        out[row] = leads_out(root, paths[row].as_py(), known)
    return out


def odd_files(root: Store, paths: Column) -> Bools:
    """Which of some paths may name a link, a pipe, a socket or a device; shape (paths,)."""
    if root.local is None:
        return np.zeros(len(paths), bool)
    folders = as_dictionary(folder_column(paths))
    counts = np.bincount(folders.indices.to_numpy(), minlength=len(folders.dictionary))
    odd: list[str] = []
    unlisted: list[str] = []
    for folder, count in zip(folders.dictionary.to_pylist(), counts.tolist(), strict=True):
        names = _odd_names(root.local / folder, FEW + TIMES * count)
        if names is None:
            unlisted.append(folder)
        else:
            prefix = f"{folder}/" if folder else ""
            odd += [prefix + name for name in names]
    found = as_numpy(is_in(paths, odd))
    if unlisted:
        found |= as_numpy(is_in(folder_column(paths), unlisted))
    return found


def _odd_names(folder: Path, most: int) -> list[str] | None:
    """Names in a folder of what is neither a file nor a folder; None if it holds more than `most`.

    A folder that cannot be listed has none.
    """
    odd: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, most):
                is_file = entry.is_file(follow_symlinks=False)
                if not is_file and not entry.is_dir(follow_symlinks=False):
                    odd.append(readable(entry.name))
            more = next(entries, None)
    except (OSError, ValueError):  # nothing is there, or the name cannot be one
        return odd
    return odd if more is None else None


def folder_column(paths: Column) -> Column:
    """The folder of each path; empty for what is directly in the root."""
    return replace_matches(paths, "(^|/)[^/]*$", "")
