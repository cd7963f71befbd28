"""Segments as files of this node.

They are mapped where they lie if the disk is this node's own, else copied once for all its
processes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
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
"""Beginnings of the types of file systems that are reached over a network."""

COPIES = 4
"""Segments a process fetches at once."""

CHUNK = 2**24
"""Bytes of a segment in memory while it is fetched."""

Fetch = Callable[[Store, Segment, Path], None]
"""Brings a segment of a store to a path."""


def fetch(store: Store, segment: Segment, target: Path) -> None:
    """Copies and checks a segment; it gets its name only when it is complete."""
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


def make_local(
    store: Store, segments: Sequence[Segment], fetch: Fetch = fetch, shared: bool | None = None
) -> list[Path]:
    """The segments of a table's folder as complete files of this node.

    One process fetches each, the others wait for it. `shared` is whether the folder's disk is
    another machine's, by default as the system says. Raises IntegrityError if a segment is gone or
    damaged where it comes from, SetupError if there is no room for it.
    """
    if shared is None:
        shared = store.local is None or on_shared_disk(store.local)
    if store.local is not None and not shared:
        paths = [store.local / segment.name for segment in segments]
        for path, segment in zip(paths, segments, strict=True):
            if not _whole(path, segment):
                raise _damaged(store, segment)
        return paths
    with ThreadPoolExecutor(COPIES) as pool:
        return list(pool.map(lambda segment: _fetched(store, segment, fetch), segments))


def node_folder() -> Path:
    """The folder of this user's copies on this node."""
    return Path(tempfile.gettempdir()) / f"discl_ray-{os.getuid()}"


def _fetched(store: Store, segment: Segment, fetch: Fetch) -> Path:
    """This node's copy of a segment, made if it is not there."""
    target = node_folder() / segment.name
    if _whole(target, segment):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(f"{target}.lock"):
            if not _whole(target, segment):
                fetch(store, segment, target)
    except FileNotFoundError as error:
        raise _damaged(store, segment) from error
    except OSError as error:
        size = f"{segment.size / 1e6:.0f} MB"
        raise SetupError(
            f"{target}: {error}; a copy of {store.location(segment.name)} ({size}) belongs there; "
            "make room, or set TMPDIR to another folder on this node"
        ) from error
    return target


def _whole(path: Path, segment: Segment) -> bool:
    """Whether a file has the segment's size."""
    return path.is_file() and path.stat().st_size == segment.size


def _damaged(store: Store, segment: Segment) -> IntegrityError:
    """The error of a segment that is gone or damaged where it comes from."""
    return IntegrityError(
        f"{store.location(segment.name)}: gone or damaged; "
        f"delete the folder {store.location()} and run the command again"
    )


def on_shared_disk(path: Path) -> bool:
    """Whether a path lies on a file system of another machine, as Linux reports it; else no."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return False
    folder = f"{path.resolve()}/"
    deepest = 0
    kind = ""
    for line in mounts:
        _, point, kind_of_point, *_ = line.split()
        # of several mounts at one place the last counts
        if folder.startswith(f"{point.rstrip('/')}/") and len(point) >= deepest:
            deepest = len(point)
            kind = kind_of_point
    return kind.startswith(SHARED)
