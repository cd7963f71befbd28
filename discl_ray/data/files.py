"""The files of a data set: listed with sizes and dates, and kept under its root; and how a reader tells what is wrong with them.

A path that leaves the root, by `..`, by being absolute or by a symbolic link, is refused before anything is opened.
"""

from __future__ import annotations

import difflib
import os
import posixpath
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from discl_ray.core.ids import stable_id
from discl_ray.core.images import HEIC_REMEDY, HEIC_SUFFIXES, SUFFIXES, can_heic
from discl_ray.core.images import is_image as begins_as_image
from discl_ray.core.storage import SPECIAL, Store, is_special
from discl_ray.errors import DataError
from discl_ray.process.masking import masked

SYSTEM_NAMES = frozenset(
    (
        *("__macosx", "network trash folder", "temporary items", "icon\r"),  # macOS
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),  # Windows
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("@eadir", "@tmp", "@synoresource", "@recycle", "@recently-snapshot", "@sharebin", "#recycle", "#snapshot"),  # NAS
        *("lost+found", "__pycache__"),
    )
)
"""What systems and NAS put among people's files, in any case; what begins with a dot is left out as well."""

LINK_OUT = "is a symbolic link out of data.root; data.allow_links_outside=true follows it"

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
        if not links and _escapes(root.local, plain, set() if known is None else known):
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
    return root.local is not None and _escapes(root.local, path, known)


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
            said.append(f"left out {_files(len(self.special))} of which each {SPECIAL}: {_some(self.special, 4)}")
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
    words = [f"{count} {shown(name, 40) or 'without suffix'}" for name, count in counts.most_common(limit)]
    return ", ".join(words) + (f" and {len(counts) - limit} other kinds" if len(counts) > limit else "")


def _some(names: Sequence[str], limit: int) -> str:
    return ", ".join(shown(name, 60) for name in names[:limit]) + (", …" if len(names) > limit else "")


def walk(root: Store, folder: str = "", *, links: bool = False, left: LeftOut | None = None) -> Iterator[File]:
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
        if entry.is_symlink() and not links and _escapes(root, path, set()):
            yield File(readable(path) + "/" * entry.is_dir(), -1, 0)
            continue
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
        else:
            left.special.append(readable(path))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        return iter(sorted(os.scandir(folder), key=lambda entry: entry.name))
    except OSError as error:
        raise DataError(f"{shown(str(folder))}: cannot be listed ({error.strerror})") from error


def pick(
    root: Store, wanted: Callable[[str], bool], looked_for: str, *, links: bool, left: LeftOut | None = None
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


def pick_images(root: Store, looked_for: str, *, links: bool, left: LeftOut) -> tuple[list[File], list[str]]:
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
        judged = list(zip(unknown, pool.map(lambda file: _begins_as_image(root, file, links), unknown), strict=True))
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
    heic = f"; {HEIC_REMEDY} reads HEIC" if any(left.suffixes[suffix] for suffix in HEIC_SUFFIXES) else ""
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


def readable(path: str) -> str:
    """A path as valid text: bytes that are no UTF-8 are written as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shown(text: str, limit: int = 120) -> str:
    """Text from a data set as an error may print it: on one line, without control characters, and not endless."""
    text = masked(text)
    plain = "".join(c if c.isprintable() or c == " " else ascii(c)[1:-1] for c in text[:limit])
    return plain if len(text) <= limit else f"{plain}… ({len(text)} characters)"


def folders_in(root: Store, folder: str) -> list[str]:
    """Names of the folders directly in a folder, without those of systems."""
    if root.local is None:
        return [name for name in root.folders(folder) if not of_system(name)]
    return [readable(entry.name) for entry in _entries(root.local / folder) if entry.is_dir() and not of_system(entry.name)]


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
