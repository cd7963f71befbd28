"""The root of a data set: nothing outside it is opened, and names are found however their accents are encoded.

A path that leaves the root, by `..`, by being absolute or by a symbolic link, is refused before anything is opened.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from discl_ray.core.storage import SPECIAL, Store, is_special
from discl_ray.data.wording import shown
from discl_ray.errors import DataError

LINK_OUT = "is a symbolic link out of data.root; data.allow_links_outside=true follows it"


LONGEST = 4096
"""Characters of a path; more is a mistake in a manifest."""


def open_root(root: str) -> Store:
    """The data set's folder; `~` is the home folder.

    Raises DataError if there is none, naming what lies beside it.
    """
    place = root if "://" in root else os.path.expanduser(root)
    try:
        if (
            "://" not in root and ".." in Path(place).parts
        ):  # so that absolute paths in a manifest begin with it
            place = os.path.realpath(place)
        store = Store.at(place)
        kind = store.filesystem.get_file_info(store.base).type
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise DataError(f"data.root = '{shown(root)}': cannot be opened: {error}") from error
    if kind == pafs.FileType.Directory:
        return store
    if kind == pafs.FileType.File:
        raise DataError(f"data.root = '{shown(root)}': is a file; name the folder it lies in")
    beside = ""
    if store.local is not None and store.local.parent.is_dir():
        names = sorted(p.name for p in store.local.parent.iterdir() if p.is_dir())[:8]
        beside = f"; {store.local.parent} holds {', '.join(map(shown, names)) or 'no folder'}"
    raise DataError(f"data.root = '{shown(root)}': no such folder{beside}")


def guard(root: Store, path: str, *, links: bool, known: set[str] | None = None) -> str:
    """A path a manifest names, relative to the root and in its plain form; absolute ones are taken if they lie under the root.
    Blanks at its ends belong to it only where there is such a file.

    Raises ValueError with the rule that is broken. `links` allows symbolic links out of the root. Nothing is opened. `known`
    is a set that a caller with many paths keeps for one root: folders that were looked at before.
    """
    if not path.strip():
        raise ValueError("is empty")
    if "\0" in path or len(path) > LONGEST:
        raise ValueError(f"holds a NUL byte or more than {LONGEST} characters")
    if root.local is None or not os.path.lexists(root.local / path):
        path = path.strip()
    if "://" in path or path.lower().startswith("file:"):
        raise ValueError("is a URI; paths under data.root are allowed")
    if path.endswith(("/", "\\")):
        raise ValueError("names a folder")
    plain = posixpath.normpath(path.replace("\\", "/"))
    if posixpath.isabs(plain):
        plain = _relative(root, plain)
    if plain == ".." or plain.startswith("../") or plain == ".":
        raise ValueError("leaves data.root")
    if root.local is not None:
        if not links and escapes(root.local, plain, set() if known is None else known):
            raise ValueError(LINK_OUT)
        plain = _as_spelt(root.local, plain)
        if is_special(root.local / plain):
            raise ValueError(SPECIAL)
    return plain


def in_nfc(text: str) -> str:
    """A path or a name with its accents composed, by which they are compared: macOS, zips and tables spell them differently."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def same_name(name: str) -> str:
    """A class as it is called and compared: in NFC, without blanks at its ends."""
    return in_nfc(name).strip() or name


def _as_spelt(root: Path, path: str) -> str:
    """A path as the disk spells it, where the two are the same in NFC."""
    if path.isascii() or os.path.lexists(root / path):
        return path
    spelt = ""
    for part in path.split("/"):
        here = f"{spelt}{part}"
        if not os.path.lexists(root / here):
            here = f"{spelt}{_names_by_nfc(root / spelt).get(in_nfc(part), part)}"
        spelt = f"{here}/"
    return spelt.rstrip("/")


def _names_by_nfc(folder: Path) -> Mapping[str, str]:
    try:
        return _listed_by_nfc(str(folder), os.stat(folder).st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=64)
def _listed_by_nfc(folder: str, _mtime_ns: int) -> Mapping[str, str]:
    return {in_nfc(name): name for name in sorted(os.listdir(folder))}


def leads_out(root: Store, path: str, known: set[str]) -> bool:
    """Whether a path that `guard` let pass leaves the root by a symbolic link. `known` as for `guard`."""
    return root.local is not None and escapes(root.local, path, known)


def _relative(root: Store, path: str) -> str:
    """An absolute path as one relative to the root, by either name of the root if that is a symbolic link."""
    for home in (root.base, os.path.realpath(root.base)) if root.local is not None else ():
        if path.startswith(f"{home.rstrip('/')}/"):
            return posixpath.relpath(path, home)
    raise ValueError("is absolute and not under data.root")


def escapes(root: Path, path: str, known: set[str]) -> bool:
    """Whether symbolic links on the way lead out; `path` has no `..`, so without a link it cannot."""
    end = -1
    while end != len(path):
        end = path.find("/", end + 1)
        end = len(path) if end < 0 else end
        if path[:end] in known:
            continue
        if os.path.islink(root / path[:end]):
            real, home = os.path.realpath(root / path), os.path.realpath(root)
            return os.path.commonpath([real, home]) != home
        if end < len(path):
            known.add(path[:end])
    return False
