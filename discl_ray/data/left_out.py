"""What lies under the root and is not used: hidden files, files of systems, other kinds."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from discl_ray.core.images import HEIC_REMEDY, HEIC_SUFFIXES
from discl_ray.core.storage import SPECIAL
from discl_ray.data.wording import counted, first_few, shown

_MACOS = ("__macosx", "network trash folder", "temporary items", "icon\r")
"""Icon files of folders have a carriage return in their name."""

_WINDOWS_FOLDERS = (
    "$recycle.bin",
    "recycler",
    "recycled",
    "system volume information",
    "found.000",
)
"""Recycle bins of several versions, restore points, and what chkdsk recovered."""

_WINDOWS_FILES = ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini")
"""Thumbnails, and how a folder is shown."""

_SYNOLOGY = ("@eadir", "@tmp", "@synoresource", "@sharebin", "#recycle", "#snapshot")
_QNAP = ("@recycle", "@recently-snapshot")

_OTHERS = ("lost+found", "__pycache__")
"""What ext4 and Python create."""

SYSTEM_NAMES = frozenset(
    (*_MACOS, *_WINDOWS_FOLDERS, *_WINDOWS_FILES, *_SYNOLOGY, *_QNAP, *_OTHERS)
)
"""What systems and NAS put among people's files, in lower case; hidden files are left out, too."""


def of_system(name: str) -> bool:
    """Whether a file or folder is hidden, or is one that systems and NAS create."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


@dataclass
class LeftOut:
    """What lies under a root and is not used."""

    suffixes: Counter[str] = field(default_factory=Counter)
    """Files that are not images by their name, by suffix in lower case."""
    system: set[str] = field(default_factory=set)
    """Paths for which `of_system` holds."""
    special: list[str] = field(default_factory=list)
    """Paths of pipes, sockets and devices, whatever they are called: reading one could block."""

    def sentences(self) -> list[str]:
        """What the user should know about it, a line each."""
        sentences = list(self._other_kinds())
        sentences += self._pipes()
        sentences += self._of_systems()
        return sentences

    def _other_kinds(self) -> Iterator[str]:
        """On files that are not images by their name."""
        if self.suffixes:
            count = self.suffixes.total()
            files = counted(count, "file that is no image", "files that are no images")
            kinds = _by_kind(self.suffixes)
            yield f"left out {files}: {kinds}"
        # photos of phones are what people miss, and Pillow alone does not read them
        photos = sum(self.suffixes[suffix] for suffix in HEIC_SUFFIXES)
        if photos:
            number = counted(photos, "HEIC photo")
            yield f"{number} can be read after {HEIC_REMEDY}"

    def _pipes(self) -> Iterator[str]:
        """On what could block a reader."""
        if self.special:
            files = counted(len(self.special), "file")
            some = first_few(self.special, 4)
            yield f"left out {files} of which each {SPECIAL}: {some}"

    def _of_systems(self) -> Iterator[str]:
        """On what is hidden, or of systems and NAS."""
        of_systems: Counter[str] = Counter()
        hidden: Counter[str] = Counter()
        # by path, so that names that are equally frequent always come in the same order
        for path in sorted(self.system):
            name = posixpath.basename(path)
            if name.startswith("."):
                hidden[name] += 1
            else:
                of_systems[name] += 1
        if of_systems:
            kinds = _by_kind(of_systems)
            yield f"left out files of systems and NAS: {kinds}"
        if hidden:
            count = hidden.total()
            files = counted(count, "hidden file or folder", "hidden files and folders")
            some = first_few(sorted(hidden), 4)
            yield f"left out {files}: {some}"


def _by_kind(counts: Counter[str], limit: int = 6) -> str:
    """`12 .txt, 3 .md and 2 other kinds`, the most frequent first."""
    words: list[str] = []
    for name, count in counts.most_common(limit):
        kind = shown(name, 40) or "without suffix"
        words.append(f"{count} {kind}")
    listed = ", ".join(words)
    others = len(counts) - limit
    if others <= 0:
        return listed
    more = counted(others, "other kind")
    return f"{listed} and {more}"
