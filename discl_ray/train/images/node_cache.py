"""Segments as files of this node: mapped where they lie if the disk is this node's own, else copied once for all its processes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError, SetupError
from discl_ray.train.images.segments import Segment

SHARED = (
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "panfs",
    "smb",
    "wekafs",
)
"""How the types of file systems begin that are reached over a network."""

COPIES = 4
"""Segments a process fetches at once."""

CHUNK = 2**24
"""Bytes of a segment in memory while it is fetched."""


def make_local(store: Store, segments: Sequence[Segment]) -> list[Path]:
    """The segments of a table's folder as files of this node, whole; one process fetches each, the others wait for it.

    Raises IntegrityError if a segment is gone or damaged where it comes from, SetupError if there is no room for it.
    """
    if store.local is not None and not on_shared_disk(store.local):
        paths = [store.local / segment.name for segment in segments]
        for path, segment in zip(paths, segments, strict=True):
            if not _whole(path, segment):
                raise _damaged(store, segment)
        return paths
    with ThreadPoolExecutor(COPIES) as pool:
        return list(pool.map(lambda segment: _fetched(store, segment), segments))


def node_folder() -> Path:
    """Where this user's copies lie on this node."""
    return Path(tempfile.gettempdir()) / f"discl_ray-{os.getuid()}"


def _fetched(store: Store, segment: Segment) -> Path:
    target = node_folder() / segment.name
    if _whole(target, segment):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(f"{target}.lock"):
            if not _whole(target, segment):
                _fetch(store, segment, target)
    except FileNotFoundError as error:
        raise _damaged(store, segment) from error
    except OSError as error:
        raise SetupError(
            f"{target}: {error}; a copy of {store.path(segment.name)} ({segment.size / 1e6:.0f} MB) belongs there; "
            "make room, or set TMPDIR to another folder on this node"
        ) from error
    return target


def _fetch(store: Store, segment: Segment, target: Path) -> None:
    """Copies and checks a segment; it appears under its name only when it is whole."""
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    digest = hashlib.sha256()
    try:
        with (
            store.filesystem.open_input_stream(store.path(segment.name)) as stream,
            temporary.open("wb") as file,
        ):
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != segment.sha256:
            raise _damaged(store, segment)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _whole(path: Path, segment: Segment) -> bool:
    return path.is_file() and path.stat().st_size == segment.size


def _damaged(store: Store, segment: Segment) -> IntegrityError:
    return IntegrityError(
        f"{store.path(segment.name)}: gone or damaged; delete the folder {store.base} and run the command again"
    )


def on_shared_disk(path: Path) -> bool:
    """Whether a path lies on a file system of another machine, as far as Linux tells; elsewhere, no."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return False
    real = str(path.resolve())
    under = [
        (len(point), number, kind)  # the deepest, and of those at one place the last
        for number, (_, point, kind, *_) in enumerate(mounts)
        if f"{real}/".startswith(f"{point.rstrip('/')}/")
    ]
    return max(under, default=(0, 0, ""))[2].startswith(SHARED)
