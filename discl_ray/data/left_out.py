"""What lies under the root and is not used: hidden files, files of systems, other kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from discl_ray.core.images import HEIC_REMEDY, HEIC_SUFFIXES
from discl_ray.core.storage import SPECIAL
from discl_ray.data.wording import counted, first_few, shown

_MACOS = ("__macosx", "network trash folder", "temporary items", "icon\r")
_WINDOWS = (
    *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
)
_NAS = (
    *("@eadir", "@tmp", "@synoresource", "@recycle", "@recently-snapshot", "@sharebin"),
    *("#recycle", "#snapshot"),
)
SYSTEM_NAMES = frozenset((*_MACOS, *_WINDOWS, *_NAS, "lost+found", "__pycache__"))
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
        return [*self._other_kinds(), *self._pipes(), *self._of_systems()]

    def _other_kinds(self) -> Iterator[str]:
        """On files that are not images by their name."""
        if self.suffixes:
            count = self.suffixes.total()
            files = counted(count, "file that is no image", "files that are no images")
            yield f"left out {files}: {_by_kind(self.suffixes)}"
        photos = sum(self.suffixes[suffix] for suffix in HEIC_SUFFIXES)
        if photos:
            yield f"{counted(photos, 'HEIC photo')} can be read after {HEIC_REMEDY}"

    def _pipes(self) -> Iterator[str]:
        """On what could block a reader."""
        if self.special:
            files = counted(len(self.special), "file")
            some = first_few(self.special, 4)
            yield f"left out {files} of which each {SPECIAL}: {some}"

    def _of_systems(self) -> Iterator[str]:
        """On what is hidden, or of systems and NAS."""
        paths = sorted(self.system)
        names = Counter(path.rsplit("/", 1)[-1] for path in paths)
        hidden = sorted(name for name in names if name.startswith("."))
        count = sum(names.pop(name) for name in hidden)
        if names:
            yield f"left out files of systems and NAS: {_by_kind(names)}"
        if hidden:
            files = counted(count, "hidden file or folder", "hidden files and folders")
            yield f"left out {files}: {first_few(hidden, 4)}"


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
    return f"{listed} and {counted(others, 'other kind')}"
