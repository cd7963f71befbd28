"""The files of a data set, listed with sizes and dates."""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from discl_ray.core.ids import stable_id
from discl_ray.core.images import HEIC_REMEDY, HEIC_SUFFIXES, SUFFIXES, can_heic
from discl_ray.core.images import is_image as begins_as_image
from discl_ray.core.storage import SPECIAL, Store
from discl_ray.data.left_out import LeftOut, of_system
from discl_ray.data.root import LINK_OUT, escapes, in_nfc, leads_out
from discl_ray.data.wording import counted, readable, shown
from discl_ray.errors import DataError

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What data sets call the splits, in any case."""

_TRAIN_WORDS = SPLIT_WORDS["train"]
_VAL_WORDS = SPLIT_WORDS["val"]
_TEST_WORDS = SPLIT_WORDS["test"]
ALL_SPLIT_WORDS = (*_TRAIN_WORDS, *_VAL_WORDS, *_TEST_WORDS)
"""As errors list them."""

LOOK = 50_000
"""Files of other kinds, and none that is wanted, after which a folder is taken for a wrong one."""

HEAD = 64
"""Bytes that tell an image from another file."""

READERS = 16
"""Threads that look at files without a suffix: they wait for the disk or the network."""


@dataclass(frozen=True, slots=True)
class File:
    """A file under a root; with a `/` at its end, a folder that is a link out of it."""

    path: str
    """Relative to the root, with `/`."""
    size: int
    """Bytes; -1 if there is no such file."""
    mtime_ns: int
    """Date of the last change in nanoseconds; 0 if it is not known."""


def no_file(path: str) -> File:
    """A name without a file, such as a dangling link: listed, so that reading it reports it."""
    return File(path, -1, 0)


def walk(
    root: Store, folder: str = "", *, links: bool = False, left: LeftOut | None = None
) -> Iterator[File]:
    """Every file under a folder of the root, by name, folder by folder; cyclic links end.

    Pipes, devices, hidden files and those of systems are noted in `left` instead. A link out of the
    root is listed, and refused when it is read; a folder that is one is entered only with `links`.

    Raises DataError at a folder that cannot be listed.
    """
    left = left or LeftOut()
    if root.local is not None:
        return _walk_local(root.local, folder, links, left)
    return _walk_remote(root, folder, left)


def _walk_remote(root: Store, folder: str, left: LeftOut) -> Iterator[File]:
    """Files in an object store, by one listing of everything below the folder."""
    base = root.base.rstrip("/") + "/"
    place = root.path(folder)
    # a folder of an object store is only a prefix, so one without files is not found
    selector = pafs.FileSelector(place, recursive=True, allow_not_found=True)
    infos = root.filesystem.get_file_info(selector)
    found: list[File] = []
    for info in infos:
        path = info.path.removeprefix(base)
        skipped = _of_system_part(path)
        if skipped is not None:
            left.system.add(skipped)
        elif info.type == pafs.FileType.File:
            size = info.size or 0
            date = info.mtime_ns or 0
            found.append(File(path, size, date))
    yield from _by_name(found)


def _of_system_part(path: str) -> str | None:
    """The path up to its first part that is hidden or of a system."""
    parts = path.split("/")
    for length, part in enumerate(parts, start=1):
        if of_system(part):
            return "/".join(parts[:length])
    return None


def _by_name(files: Iterable[File]) -> list[File]:
    """Folder by folder: `b/2` before `b-c/1`, which plain text order would turn around."""
    return sorted(files, key=lambda file: file.path.split("/"))


Entry = os.DirEntry[str]
"""A name in a folder, with what the system told about it when the folder was listed."""


class _Folder(NamedTuple):
    """A folder that is being walked."""

    path: str
    """Relative to the root."""
    real: str
    """Without symbolic links, to find cycles."""
    entries: Iterator[Entry]
    """What is still to be walked of it."""


def _walk_local(root: Path, folder: str, links: bool, left: LeftOut) -> Iterator[File]:
    """Files on a disk, folder by folder."""
    # a stack of its own: folders may be nested deeper than Python recurses
    real = os.path.realpath(root / folder)
    stack = [_Folder(folder, real, _entries(root / folder))]
    while stack:
        above = stack[-1]
        entry = next(above.entries, None)
        if entry is None:
            stack.pop()
            continue
        path = posixpath.join(above.path, entry.name)
        name = readable(path)
        if of_system(entry.name):
            left.system.add(path)
            continue
        if not links and _is_link_out(root, path, entry):
            folder_mark = "/" if entry.is_dir() else ""
            yield no_file(name + folder_mark)
            continue
        status = _status(entry)
        if status is None:
            yield no_file(name)
        elif stat.S_ISREG(status.st_mode):
            yield File(name, status.st_size, status.st_mtime_ns)
        elif not stat.S_ISDIR(status.st_mode):
            left.special.append(name)
        else:
            real = _real_path(above, entry)
            outer = [each.real for each in stack]
            if real not in outer:
                entries = _entries(root / path)
                inner = _Folder(path, real, entries)
                stack.append(inner)


def _is_link_out(root: Path, path: str, entry: Entry) -> bool:
    """Whether an entry is itself a link out of the root."""
    return entry.is_symlink() and escapes(str(root), path, set())


def _entries(folder: Path) -> Iterator[Entry]:
    """What a folder holds, by name. Raises DataError if it cannot be listed."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        where = shown(str(folder))
        raise DataError(f"{where}: cannot be listed ({error.strerror})") from error
    entries.sort(key=lambda entry: entry.name)
    return iter(entries)


def _status(entry: Entry) -> os.stat_result | None:
    """Size, date and type of a file; None for a dangling link."""
    try:
        return entry.stat()
    except OSError:
        return None  # it is listed, so that reading it can report it


def _real_path(above: _Folder, entry: Entry) -> str:
    """The path of a folder without symbolic links."""
    if entry.is_symlink():
        return os.path.realpath(entry.path)
    return posixpath.join(above.real, entry.name)


def pick(
    root: Store,
    wanted: Callable[[str], bool],
    looked_for: str,
    *,
    links: bool,
    left: LeftOut | None = None,
) -> list[File]:
    """The files under a root whose path is wanted, by name; the others are noted in `left`.

    Raises DataError if there is none, saying what was looked for and what there is instead (of a
    folder that begins with LOOK files of other kinds, only these), or if one is a link out of the
    root, which `links` follows.
    """
    left = left or LeftOut()
    chosen: list[File] = []
    others: list[File] = []
    for file in walk(root, links=links, left=left):
        if wanted(file.path):
            chosen.append(file)
            continue
        if not file.path.endswith("/"):
            suffix = suffix_of(file.path)
            left.suffixes[suffix] += 1
        if not chosen:
            others.append(file)
            if len(others) == LOOK:
                break
    if not chosen:
        raise DataError(_not_found(root, looked_for, others, left))
    if not links:
        _check_inside(root, chosen)
    return chosen


def _check_inside(root: Store, files: Sequence[File]) -> None:
    """Raises DataError if a file is a link out of the root."""
    for file in files:
        if leads_out(root, file.path, set()):
            where = shown(file.path)
            raise DataError(f"{where}: {LINK_OUT}")


def pick_images(
    root: Store, looked_for: str, *, links: bool, left: LeftOut
) -> tuple[list[File], list[str]]:
    """The images under a root by name, and the folders that are links out of it.

    A file is an image by its suffix, or by its first bytes if it has none.

    Raises DataError like `pick`, except that an image that is a link out of the root is listed.
    """
    images: list[File] = []
    unknown: list[File] = []
    others: list[File] = []
    closed: list[str] = []
    for file in walk(root, links=links, left=left):
        suffix = suffix_of(file.path)
        if file.path.endswith("/"):
            closed.append(file.path.rstrip("/"))
        elif is_image(file.path):
            images.append(file)
        elif not suffix:
            unknown.append(file)
        else:
            left.suffixes[suffix] += 1
            if not images:
                others.append(file)
            if len(others) == LOOK:
                break
    found = _images_among(root, unknown, links)
    rest = len(unknown) - len(found)
    if rest:  # a Counter would keep a zero, and a note would speak of it
        left.suffixes[""] += rest
    if found:
        both = [*images, *found]
        images = _by_name(both)
    if not images and not closed:
        instead = [*others, *unknown]
        raise DataError(_not_found(root, looked_for, instead, left))
    return images, closed


def _images_among(root: Store, unknown: Sequence[File], links: bool) -> list[File]:
    """Those of some files that begin as images do."""

    def judge(file: File) -> bool:
        return _begins_as_image(root, file, links)

    images: list[File] = []
    with ThreadPoolExecutor(READERS) as pool:
        judged = pool.map(judge, unknown)
        for file, is_one in zip(unknown, judged, strict=True):
            if is_one:
                images.append(file)
    return images


def _begins_as_image(root: Store, file: File, links: bool) -> bool:
    """Whether a file's first bytes are those of an image."""
    if not links and leads_out(root, file.path, set()):
        return True  # it must not be opened; it is refused when it is read
    place = root.path(file.path)
    try:
        # unbuffered: a buffer would read ahead far beyond the few bytes that are looked at
        with root.filesystem.open_input_stream(place, buffer_size=0) as stream:
            head = stream.read(HEAD)
    except (OSError, ValueError):
        return False
    return begins_as_image(head)


def _not_found(root: Store, looked_for: str, others: Sequence[File], left: LeftOut) -> str:
    """What a search looked for and what there is instead."""
    found = found_instead(others)
    if len(others) == LOOK:
        found += ", and did not look further"
    said = [f"looked for {looked_for}", found]
    closed = [file.path for file in others if file.path.endswith("/")]
    if closed:
        first = shown(closed[0])
        said.append(f"'{first}' {LINK_OUT}")
    if left.special:
        first = shown(left.special[0])
        said.append(f"'{first}' {SPECIAL}")
    if any(left.suffixes[suffix] for suffix in HEIC_SUFFIXES):
        said.append(f"{HEIC_REMEDY} reads HEIC")
    where = f"data.root = '{shown(root.location())}'"
    found = "; ".join(said)
    return f"{where}: {found}"


def found_instead(files: Sequence[File], limit: int = 6) -> str:
    """What is in a folder that has no images, in words for an error."""
    if not files:
        return "the folder is empty"
    kinds: Counter[str] = Counter()
    tops: set[str] = set()
    for file in files:
        kind = suffix_of(file.path) or "no suffix"
        kinds[kind] += 1
        top, *_ = file.path.split("/")
        tops.add(top)
    by_kind: list[str] = []
    for kind, count in kinds.most_common(limit):
        by_kind.append(f"{count} {shown(kind)}")
    some = sorted(tops)[:limit]
    where = ", ".join(shown(top) for top in some)
    number = counted(len(files), "file")
    what = ", ".join(by_kind)
    return f"found {number} ({what}) in {where}"


def stat_files(root: Store, paths: Iterable[str]) -> list[File]:
    """Size and date of each path under the root, in order, with the path as it is spelt there."""
    if root.local is not None:
        folder = str(root.local)
        return [_stat_local(folder, path) for path in paths]
    listed = {file.path: file for file in walk(root)}  # one listing instead of a request each
    spelt = {in_nfc(path): file for path, file in listed.items()}
    found: list[File] = []
    for path in paths:
        plain = in_nfc(path)
        file = listed.get(path) or spelt.get(plain)
        found.append(file or no_file(path))
    return found


def _stat_local(folder: str, path: str) -> File:
    """A file on a disk, as it is now."""
    try:
        status = os.stat(f"{folder}/{path}")  # a Path takes longer than the question to the disk
    except OSError:
        return no_file(path)
    return File(path, status.st_size, status.st_mtime_ns)


def folders_in(root: Store, folder: str) -> list[str]:
    """Names of the folders directly in a folder, without those of systems."""
    if root.local is None:
        return [name for name in root.folders(folder) if not of_system(name)]
    entries = _entries(root.local / folder)
    names = (entry.name for entry in entries if entry.is_dir())
    return [readable(name) for name in names if not of_system(name)]


def suffix_of(path: str) -> str:
    """`.jpg`, in lower case; empty if there is none."""
    return posixpath.splitext(path)[1].lower()


def is_image(path: str) -> bool:
    """Whether a file is an image by its name."""
    suffix = suffix_of(path)
    if suffix in HEIC_SUFFIXES:
        return can_heic()
    return suffix in SUFFIXES


def split_of(word: str) -> str | None:
    """train, val or test; None if the word is none of SPLIT_WORDS."""
    plain = word.lower()
    for split, words in SPLIT_WORDS.items():
        if plain in words:
            return split
    return None


def stamp_of(files: Iterable[File], *more: Any) -> str:
    """A hash of names, sizes and dates, which changes when a file does."""
    listed = [[file.path, file.size, file.mtime_ns] for file in files]
    return stable_id(listed, *more)
