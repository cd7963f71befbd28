"""The files of a data set: listed with sizes and dates, and kept under its root; and how a reader tells what is wrong with them.

A path that leaves the root, by `..`, by being absolute or by a symbolic link, is refused before anything is opened.
"""

from __future__ import annotations

import difflib
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from discl_ray.core.ids import stable_id
from discl_ray.core.storage import Store
from discl_ray.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2")
"""What counts as an image by its name, in any case."""

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What data sets call the splits, in any case."""

LONGEST = 4096
"""Characters of a path; more is a mistake in a manifest."""

LOOK = 50_000
"""Files of other kinds after which a folder is taken for a wrong one."""

TOLD = 20
"""Problems of one file that an error lists."""


@dataclass(frozen=True, slots=True)
class File:
    """A file under a root."""

    path: str
    """Relative to the root, with `/`."""
    size: int
    """Bytes; -1 if there is no such file."""
    mtime_ns: int


class Problems:
    """What is wrong with one file, told in one error."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._told: list[str] = []

    def add(self, where: str, rule: str) -> None:
        """One more; raises DataError when there are TOLD of them, since more would help nobody."""
        self._told.append(f"  {where}: {rule}")
        if len(self._told) == TOLD:
            self._told.append("  there may be more")
            self.check()

    def check(self) -> None:
        """Raises DataError if there is any."""
        if self._told:
            raise DataError("\n".join([f"{self._file}: cannot be used as it is:", *self._told]))


def open_root(root: str) -> Store:
    """The data set's folder; `~` is the home folder.

    Raises DataError if there is none, naming what lies beside it.
    """
    place = root if "://" in root else os.path.expanduser(root)
    try:
        if "://" not in root and ".." in Path(place).parts:  # so that absolute paths in a manifest begin with it
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

    Raises ValueError with the rule that is broken. `links` allows symbolic links out of the root. Nothing is opened. `known`
    is a set that a caller with many paths keeps for one root: folders that were looked at before.
    """
    if not path or path != path.strip():
        raise ValueError("is empty or has blanks around it")
    if "\0" in path or len(path) > LONGEST:
        raise ValueError(f"holds a NUL byte or more than {LONGEST} characters")
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
        if not links and _escapes(root.local, plain, set() if known is None else known):
            raise ValueError("is a symbolic link out of data.root; data.allow_links_outside=true follows it")
        if _special(root.local / plain):
            raise ValueError("is a pipe, a socket or a device")
    return plain


def _relative(root: Store, path: str) -> str:
    """An absolute path as one relative to the root, by either name of the root if that is a symbolic link."""
    for home in (root.base, os.path.realpath(root.base)) if root.local is not None else ():
        if path.startswith(f"{home.rstrip('/')}/"):
            return posixpath.relpath(path, home)
    raise ValueError("is absolute and not under data.root")


def _escapes(root: Path, path: str, known: set[str]) -> bool:
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


def _special(path: Path) -> bool:
    """Whether reading it could wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # there is none; reading says so
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def walk(root: Store, folder: str = "", *, links: bool = False) -> Iterator[File]:
    """Every file under a folder of the root, by name, folder by folder; hidden ones (`.x`, `__MACOSX`), pipes and devices are
    left out, loops of links end.

    Raises DataError at a link out of the root unless `links` allows it, and at a folder that cannot be listed.
    """
    if root.local is not None:
        yield from _walk_local(root.local, folder, links)
        return
    selector = pafs.FileSelector(root.path(folder), recursive=True, allow_not_found=True)
    found: list[File] = []
    for info in root.filesystem.get_file_info(selector):
        path = info.path.removeprefix(root.base.rstrip("/") + "/")
        if info.type == pafs.FileType.File and not any(_hidden(part) for part in path.split("/")):
            found.append(File(path, info.size or 0, info.mtime_ns or 0))
    yield from sorted(found, key=lambda file: file.path.split("/"))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _walk_local(root: Path, folder: str, links: bool) -> Iterator[File]:
    # a stack of its own: folders may lie deeper than Python's calls go
    stack = [(folder, os.path.realpath(root / folder), _entries(root / folder))]
    while stack:
        above, _, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        path = f"{above}/{entry.name}" if above else entry.name
        if _hidden(entry.name):
            continue
        if entry.is_symlink() and not links and _escapes(root, path, set()):
            raise DataError(
                f"{shown(str(root / path))}: a symbolic link out of data.root; data.allow_links_outside=true follows it"
            )
        try:
            status = entry.stat()
        except OSError:  # a link to nothing; reading it says so in its row
            yield File(readable(path), -1, 0)
            continue
        if stat.S_ISDIR(status.st_mode):
            real = os.path.realpath(entry.path) if entry.is_symlink() else f"{stack[-1][1].rstrip('/')}/{entry.name}"
            if all(real != known for _, known, _ in stack):
                stack.append((path, real, _entries(root / path)))
        elif stat.S_ISREG(status.st_mode):
            yield File(readable(path), status.st_size, status.st_mtime_ns)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        return iter(sorted(os.scandir(folder), key=lambda entry: entry.name))
    except OSError as error:
        raise DataError(f"{shown(str(folder))}: cannot be listed ({error.strerror})") from error


def pick(root: Store, wanted: Callable[[str], bool], looked_for: str, *, links: bool) -> list[File]:
    """The files under a root whose path is wanted, by name.

    Raises DataError if there is none, saying what was looked for and what is there; a folder with LOOK files of other kinds
    before the first is not looked through.
    """
    chosen: list[File] = []
    others: list[File] = []
    for file in walk(root, links=links):
        if wanted(file.path):
            chosen.append(file)
        elif not chosen:
            others.append(file)
            if len(others) == LOOK:
                break
    if not chosen:
        more = ", and did not look further" if len(others) == LOOK else ""
        raise DataError(f"data.root = '{shown(root.base)}': looked for {looked_for}; {found_instead(others)}{more}")
    return chosen


def stat_files(root: Store, paths: Iterable[str]) -> list[File]:
    """Size and date of each path under the root, in their order."""
    if root.local is None:  # one listing instead of a request each
        there = {file.path: file for file in walk(root)}
        return [there.get(path, File(path, -1, 0)) for path in paths]
    found: list[File] = []
    for path in paths:
        try:
            status = os.stat(root.local / path)
        except OSError:
            found.append(File(path, -1, 0))
        else:
            found.append(File(path, status.st_size, status.st_mtime_ns))
    return found


def readable(path: str) -> str:
    """A path as valid text: bytes that are no UTF-8 are written as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shown(text: str, limit: int = 120) -> str:
    """Text from a data set as an error may print it: on one line, without control characters, and not endless."""
    plain = "".join(c if c.isprintable() or c == " " else ascii(c)[1:-1] for c in text[:limit])
    return plain if len(text) <= limit else f"{plain}… ({len(text)} characters)"


def is_image(path: str) -> bool:
    """Whether a file is an image by its name."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def split_of(word: str) -> str | None:
    """train, val or test, or null if the word is none of SPLIT_WORDS."""
    return next((split for split, words in SPLIT_WORDS.items() if word.lower() in words), None)


def stamp_of(files: Iterable[File], *more: Any) -> str:
    """Changes when a file does: a hash of names, sizes and dates."""
    return stable_id([[f.path, f.size, f.mtime_ns] for f in files], *more)


def found_instead(files: Sequence[File], limit: int = 6) -> str:
    """What lies in a folder that has no images, in words for an error."""
    kinds = Counter(posixpath.splitext(f.path)[1].lower() or "no suffix" for f in files)
    counted = ", ".join(f"{n} {shown(kind)}" for kind, n in kinds.most_common(limit))
    tops = sorted({f.path.split("/")[0] for f in files})[:limit]
    return f"found {len(files)} files ({counted}) in {', '.join(map(shown, tops))}" if files else "the folder is empty"


def choose_columns(
    given: Mapping[str, str],
    found: Sequence[str],
    *,
    required: Sequence[str],
    optional: Sequence[str],
    where: str,
    mend: str = "data.columns",
) -> dict[str, str]:
    """Our name of each column that is there -> theirs. `given` says what a file calls ours, where that differs, because `mend`,
    which is a key of the configuration, says so.

    Raises DataError listing the columns if one is missing that is required or was named, or stands there twice.
    """
    chosen: dict[str, str] = {}
    wrong: list[str] = []
    for ours in (*required, *optional):
        theirs = given.get(ours, ours)
        match found.count(theirs):
            case 0 if ours in required or ours in given:
                near = difflib.get_close_matches(theirs, found, n=1)
                wrong.append(f"no column '{shown(theirs)}'" + (f" (did you mean '{shown(near[0])}'?)" if near else ""))
            case 0:
                pass
            case 1:
                chosen[ours] = theirs
            case several:
                wrong.append(f"{several} columns are called '{shown(theirs)}'")
    if wrong:
        listed = ", ".join(shown(name, 40) for name in found[:30]) + (", …" if len(found) > 30 else "")
        raise DataError(f"{where}: {'; '.join(wrong)}; its columns are {listed or 'none'}; say which is which with {mend}")
    return chosen
