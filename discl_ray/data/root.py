"""The root of a data set: nothing outside it is opened, and names match in any Unicode form.

A path that leaves the root, by `..`, by being absolute or by a symbolic link, is refused before
anything is opened.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import pyarrow.fs as pafs

from discl_ray.core.storage import SPECIAL, UNOPENED, Store, is_special
from discl_ray.data.wording import shown
from discl_ray.errors import NO_BUCKET, TO_READ, DataError, trouble_of_store

LINK_OUT = "is a symbolic link out of data.root; data.allow_links_outside=true follows it"

LONGEST = 4096
"""Characters of a path; more is a mistake in a manifest."""

NEIGHBOURS = 8
"""Folders beside a missing root that an error names."""


def open_root(root: str) -> Store:
    """The data set's folder or URI; `~` is the home folder.

    Raises DataError if it does not exist, naming its neighbours.
    """
    where = f"data.root = '{shown(root)}'"
    try:
        store = Store.at(_absolute(root))
        kind = store.kind()
    except UNOPENED as error:
        trouble = trouble_of_store(str(error), TO_READ)
        if trouble is not None:
            raise DataError(f"{where}: cannot be read ({trouble[0]}); {trouble[1]}") from error
        raise DataError(f"{where}: cannot be opened: {error}") from error
    if not store.has_bucket():
        raise DataError(f"{where}: {'; '.join(NO_BUCKET)}")
    if kind == pafs.FileType.Directory:
        return store
    if kind == pafs.FileType.File:
        raise DataError(f"{where}: is a file; name the folder it lies in")
    raise DataError(f"{where}: no such folder{_neighbours(store)}")


def _absolute(root: str) -> str:
    """A root without `~` and `..`, so that absolute paths in a manifest begin with it."""
    if "://" in root:
        return root
    expanded = os.path.expanduser(root)
    if ".." in Path(expanded).parts:
        return os.path.realpath(expanded)
    return expanded


def _neighbours(store: Store) -> str:
    """What is beside a root that does not exist; empty if that cannot be looked at."""
    if store.local is None or not store.local.parent.is_dir():
        return ""
    parent = store.local.parent
    folders = [path.name for path in parent.iterdir() if path.is_dir()]
    folders.sort()
    names = [shown(name) for name in folders[:NEIGHBOURS]]
    listed = ", ".join(names) or "no folder"
    return f"; {parent} holds {listed}"


def guard(root: Store, path: str, *, links: bool, known: set[str] | None = None) -> str:
    """A path from a manifest, relative to the root and normalised.

    Absolute paths are accepted if they lie under the root. Blanks at the ends are dropped unless
    there is a file of that name. `links` allows symbolic links out of the root. `known` is a set
    that a caller with many paths keeps for one root: folders that were checked before. Nothing is
    opened.

    Raises ValueError with the rule that is broken.
    """
    # as text: at a million paths, building a Path takes longer than asking the disk
    folder = None if root.local is None else root.base
    given = _checked_text(folder, path)
    with_slashes = given.replace("\\", "/")  # tables made on Windows
    plain = posixpath.normpath(with_slashes)
    if posixpath.isabs(plain):
        plain = _relative(root, plain)
    if plain in ("..", ".") or plain.startswith("../"):
        raise ValueError("leaves data.root")
    if folder is None:
        return plain
    inside = set() if known is None else known
    if not links and escapes(folder, plain, inside):
        raise ValueError(LINK_OUT)
    plain = _as_spelt(folder, plain)
    if is_special(f"{folder}/{plain}"):
        raise ValueError(SPECIAL)
    return plain


def _checked_text(folder: str | None, path: str) -> str:
    """A path below a local folder, or any other, that can be one.

    Raises ValueError with the rule that is broken.
    """
    if not path.strip():
        raise ValueError("is empty")
    if "\0" in path or len(path) > LONGEST:
        raise ValueError(f"holds a NUL byte or more than {LONGEST} characters")
    if path != path.strip() and (folder is None or not os.path.lexists(f"{folder}/{path}")):
        path = path.strip()
    if "://" in path or path.lower().startswith("file:"):
        raise ValueError("is a URI; paths under data.root are allowed")
    if path.endswith(("/", "\\")):
        raise ValueError("names a folder")
    return path


def in_nfc(text: str) -> str:
    """A path or name with composed accents, the form in which they are compared.

    macOS, zip files and tables spell them differently.
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text)


def same_name(name: str) -> str:
    """A class name in the form in which it is shown and compared: NFC, no blanks at the ends."""
    return in_nfc(name).strip() or name


def _as_spelt(root: str, path: str) -> str:
    """A path as the disk spells it, where the two are the same in NFC."""
    if path.isascii() or os.path.lexists(f"{root}/{path}"):
        return path
    spelt = ""
    for part in path.split("/"):
        here = posixpath.join(spelt, part)
        if not os.path.lexists(f"{root}/{here}"):
            names = _names_by_nfc(f"{root}/{spelt}")
            name = names.get(in_nfc(part), part)
            here = posixpath.join(spelt, name)
        spelt = here
    return spelt


def _names_by_nfc(folder: str) -> Mapping[str, str]:
    """NFC -> name on disk, of everything in a folder; empty if it cannot be listed."""
    try:
        date = os.stat(folder).st_mtime_ns
        return _listed_by_nfc(folder, date)
    except OSError:
        return {}


@lru_cache(maxsize=64)
def _listed_by_nfc(folder: str, _mtime_ns: int) -> Mapping[str, str]:
    """Cached by the folder's date, so that a changed folder is listed again."""
    names = sorted(os.listdir(folder))  # of two that are equal in NFC, always the same one
    return {in_nfc(name): name for name in names}


def leads_out(root: Store, path: str, known: set[str]) -> bool:
    """Whether a path that `guard` accepted leaves the root by a symbolic link.

    `known` as for `guard`.
    """
    return root.local is not None and escapes(root.base, path, known)


def _relative(root: Store, path: str) -> str:
    """An absolute path relative to the root, which may itself be a symbolic link."""
    homes: list[str] = []
    if root.local is not None:
        homes = [root.base, os.path.realpath(root.base)]
    for home in homes:
        if path.startswith(f"{home.rstrip('/')}/"):
            return posixpath.relpath(path, home)
    raise ValueError("is absolute and not under data.root")


def escapes(root: str, path: str, known: set[str]) -> bool:
    """Whether a path without `..` leaves the root by a symbolic link on the way.

    Folders that do not are added to `known` and not checked again.
    """
    end = -1
    while end != len(path):
        end = path.find("/", end + 1)
        if end < 0:
            end = len(path)
        part = path[:end]
        if part in known:
            continue
        if os.path.islink(f"{root}/{part}"):
            return _is_outside(root, path)
        if part != path:
            known.add(part)
    return False


def _is_outside(root: str, path: str) -> bool:
    """Whether a path's links lead out of the root, which may itself be one."""
    real = os.path.realpath(f"{root}/{path}")
    home = os.path.realpath(root)
    return os.path.commonpath([real, home]) != home
