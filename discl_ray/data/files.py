"""The files of a data set: listed with sizes and dates; and how a reader tells what is wrong with them."""

from __future__ import annotations

import difflib
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from discl_ray.core.ids import stable_id
from discl_ray.core.images import HEIC_REMEDY, HEIC_SUFFIXES, SUFFIXES, can_heic
from discl_ray.core.images import is_image as begins_as_image
from discl_ray.core.storage import SPECIAL, Store
from discl_ray.data.root import LINK_OUT, escapes, in_nfc, leads_out
from discl_ray.data.wording import readable, shown
from discl_ray.errors import DataError

SYSTEM_NAMES = frozenset(
    (
        *("__macosx", "network trash folder", "temporary items", "icon\r"),  # macOS
        *(
            "$recycle.bin",
            "recycler",
            "recycled",
            "system volume information",
            "found.000",
        ),  # Windows
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *(
            "@eadir",
            "@tmp",
            "@synoresource",
            "@recycle",
            "@recently-snapshot",
            "@sharebin",
            "#recycle",
            "#snapshot",
        ),  # NAS
        *("lost+found", "__pycache__"),
    )
)
"""What systems and NAS put among people's files, in any case; what begins with a dot is left out as well."""


SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What data sets call the splits, in any case."""


LOOK = 50_000
"""Files of other kinds after which a folder is taken for a wrong one."""


TOLD = 20
"""Problems of one file that an error lists."""


@dataclass(frozen=True, slots=True)
class File:
    """A file under a root, or, with a `/` at its end, a folder that is not entered: a link out of the root."""

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


@dataclass
class LeftOut:
    """What lies under a root and is not used."""

    suffixes: Counter[str] = field(default_factory=Counter)
    """Files that are no image by their name, by suffix in small letters."""
    system: set[str] = field(default_factory=set)
    """Paths of what systems and NAS make, and of what is hidden."""
    special: list[str] = field(default_factory=list)
    """Paths of pipes, sockets and devices, whatever they are called: reading one could wait for ever."""

    def sentences(self) -> list[str]:
        """What a user should know of it, a line each."""
        said: list[str] = []
        if self.suffixes:
            count = self.suffixes.total()
            said.append(
                f"left out {_files(count)} that {'are no images' if count > 1 else 'is no image'}: {_counted(self.suffixes)}"
            )
        if photos := sum(self.suffixes[suffix] for suffix in HEIC_SUFFIXES):
            said.append(f"{_files(photos)} of telephones (HEIC) can be read after {HEIC_REMEDY}")
        if self.special:
            said.append(
                f"left out {_files(len(self.special))} of which each {SPECIAL}: {_some(self.special, 4)}"
            )
        names = Counter(path.rsplit("/", 1)[-1] for path in sorted(self.system))
        hidden = sum(count for name, count in names.items() if name.startswith("."))
        made = Counter({name: count for name, count in names.items() if not name.startswith(".")})
        if made:
            said.append(f"left out what systems and NAS make: {_counted(made)}")
        if hidden:
            shown_ = sorted(name for name in names if name.startswith("."))
            said.append(f"left out {hidden} hidden files and folders: {_some(shown_, 4)}")
        return said


def _files(count: int) -> str:
    return f"{count} file{'s' if count > 1 else ''}"


def _counted(counts: Counter[str], limit: int = 6) -> str:
    words = [
        f"{count} {shown(name, 40) or 'without suffix'}"
        for name, count in counts.most_common(limit)
    ]
    return ", ".join(words) + (
        f" and {len(counts) - limit} other kinds" if len(counts) > limit else ""
    )


def _some(names: Sequence[str], limit: int) -> str:
    return ", ".join(shown(name, 60) for name in names[:limit]) + (
        ", …" if len(names) > limit else ""
    )


def walk(
    root: Store, folder: str = "", *, links: bool = False, left: LeftOut | None = None
) -> Iterator[File]:
    """Every file under a folder of the root, by name, folder by folder; loops of links end.

    Pipes and devices, hidden files and what systems make are left out and noted in `left`. A link out of the root is a file all
    the same, of which reading says so, and a folder that is not entered; `links` enters it.

    Raises DataError at a folder that cannot be listed.
    """
    left = left or LeftOut()
    if root.local is not None:
        yield from _walk_local(root.local, folder, links, left)
        return
    selector = pafs.FileSelector(root.path(folder), recursive=True, allow_not_found=True)
    found: list[File] = []
    for info in root.filesystem.get_file_info(selector):
        path = info.path.removeprefix(root.base.rstrip("/") + "/")
        parts = path.split("/")
        if made := next((i for i, part in enumerate(parts, 1) if of_system(part)), 0):
            left.system.add("/".join(parts[:made]))
        elif info.type == pafs.FileType.File:
            found.append(File(path, info.size or 0, info.mtime_ns or 0))
    yield from sorted(found, key=lambda file: file.path.split("/"))


def of_system(name: str) -> bool:
    """Whether a file or folder is hidden, or of those that systems and NAS make."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def _walk_local(root: Path, folder: str, links: bool, left: LeftOut) -> Iterator[File]:
    # a stack of its own: folders may lie deeper than Python's calls go
    stack = [(folder, os.path.realpath(root / folder), _entries(root / folder))]
    while stack:
        above, _, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        path = f"{above}/{entry.name}" if above else entry.name
        if of_system(entry.name):
            left.system.add(path)
            continue
        if entry.is_symlink() and not links and escapes(root, path, set()):
            yield File(readable(path) + "/" * entry.is_dir(), -1, 0)
            continue
        try:
            status = entry.stat()
        except OSError:  # a link to nothing; reading it says so in its row
            yield File(readable(path), -1, 0)
            continue
        if stat.S_ISDIR(status.st_mode):
            real = (
                os.path.realpath(entry.path)
                if entry.is_symlink()
                else f"{stack[-1][1].rstrip('/')}/{entry.name}"
            )
            if all(real != known for _, known, _ in stack):
                stack.append((path, real, _entries(root / path)))
        elif stat.S_ISREG(status.st_mode):
            yield File(readable(path), status.st_size, status.st_mtime_ns)
        else:
            left.special.append(readable(path))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        return iter(sorted(os.scandir(folder), key=lambda entry: entry.name))
    except OSError as error:
        raise DataError(f"{shown(str(folder))}: cannot be listed ({error.strerror})") from error


def pick(
    root: Store,
    wanted: Callable[[str], bool],
    looked_for: str,
    *,
    links: bool,
    left: LeftOut | None = None,
) -> list[File]:
    """The files under a root whose path is wanted, by name; what else there is goes into `left`.

    Raises DataError if there is none, saying what was looked for and what is there (a folder with LOOK files of other kinds
    before the first is not looked through), and if one is a link out of the root, which `links` follows.
    """
    left = left or LeftOut()
    chosen: list[File] = []
    others: list[File] = []
    for file in walk(root, links=links, left=left):
        if wanted(file.path):
            chosen.append(file)
            continue
        left.suffixes[suffix_of(file.path)] += not file.path.endswith("/")
        if not chosen:
            others.append(file)
            if len(others) == LOOK:
                break
    if not chosen:
        raise DataError(_nothing(root, looked_for, others, left))
    if out := [] if links else [file for file in chosen if leads_out(root, file.path, set())]:
        raise DataError(f"{shown(out[0].path)}: {LINK_OUT}")
    return chosen


def pick_images(
    root: Store, looked_for: str, *, links: bool, left: LeftOut
) -> tuple[list[File], list[str]]:
    """The images under a root by name, and the folders that are links out of it. What has no suffix is judged by its first bytes.

    Raises DataError like `pick`; an image that is a link out of the root is listed.
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
            others += [file] * (not images)
            if len(others) == LOOK:
                break
    with ThreadPoolExecutor(16) as pool:
        judged = list(
            zip(
                unknown,
                pool.map(lambda file: _begins_as_image(root, file, links), unknown),
                strict=True,
            )
        )
    found = [file for file, yes in judged if yes]
    left.suffixes[""] += len(judged) - len(found)
    left.suffixes += Counter()  # without zeros
    images = sorted([*images, *found], key=lambda file: file.path.split("/")) if found else images
    if not images and not closed:
        raise DataError(_nothing(root, looked_for, [*others, *unknown], left))
    return images, closed


def _begins_as_image(root: Store, file: File, links: bool) -> bool:
    if not links and leads_out(root, file.path, set()):
        return True  # nobody may look; it is refused when it is read
    try:
        with root.filesystem.open_input_stream(root.path(file.path), buffer_size=0) as stream:
            return begins_as_image(stream.read(64))
    except (OSError, ValueError):
        return False


def _nothing(root: Store, looked_for: str, others: Sequence[File], left: LeftOut) -> str:
    more = ", and did not look further" if len(others) == LOOK else ""
    closed = [file.path for file in others if file.path.endswith("/")]
    linked = f"; '{shown(closed[0])}' {LINK_OUT}" if closed else ""
    heic = (
        f"; {HEIC_REMEDY} reads HEIC"
        if any(left.suffixes[suffix] for suffix in HEIC_SUFFIXES)
        else ""
    )
    special = f"; '{shown(left.special[0])}' {SPECIAL}" if left.special else ""
    return f"data.root = '{shown(root.base)}': looked for {looked_for}; {found_instead(others)}{more}{linked}{special}{heic}"


def stat_files(root: Store, paths: Iterable[str]) -> list[File]:
    """Size and date of each path under the root, in their order, and the path as it is spelt there."""
    if root.local is None:  # one listing instead of a request each
        there = {file.path: file for file in walk(root)}
        spelt = {in_nfc(path): file for path, file in there.items()}
        return [there.get(path) or spelt.get(in_nfc(path)) or File(path, -1, 0) for path in paths]
    found: list[File] = []
    for path in paths:
        try:
            status = os.stat(root.local / path)
        except OSError:
            found.append(File(path, -1, 0))
        else:
            found.append(File(path, status.st_size, status.st_mtime_ns))
    return found


def folders_in(root: Store, folder: str) -> list[str]:
    """Names of the folders directly in a folder, without those of systems."""
    if root.local is None:
        return [name for name in root.folders(folder) if not of_system(name)]
    return [
        readable(entry.name)
        for entry in _entries(root.local / folder)
        if entry.is_dir() and not of_system(entry.name)
    ]


def suffix_of(path: str) -> str:
    """`.jpg`, in small letters; empty if there is none."""
    return posixpath.splitext(path)[1].lower()


def is_image(path: str) -> bool:
    """Whether a file is an image by its name."""
    suffix = suffix_of(path)
    return suffix in SUFFIXES or (suffix in HEIC_SUFFIXES and can_heic())


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
    return (
        f"found {len(files)} files ({counted}) in {', '.join(map(shown, tops))}"
        if files
        else "the folder is empty"
    )


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
                wrong.append(
                    f"no column '{shown(theirs)}'"
                    + (f" (did you mean '{shown(near[0])}'?)" if near else "")
                )
            case 0:
                pass
            case 1:
                chosen[ours] = theirs
            case several:
                wrong.append(f"{several} columns are called '{shown(theirs)}'")
    if wrong:
        listed = ", ".join(shown(name, 40) for name in found[:30]) + (
            ", …" if len(found) > 30 else ""
        )
        raise DataError(
            f"{where}: {'; '.join(wrong)}; its columns are {listed or 'none'}; say which is which with {mend}"
        )
    return chosen
