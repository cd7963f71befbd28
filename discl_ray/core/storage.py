"""A run's files: written whole or not at all, on any file system pyarrow opens.

On a local disk a file appears by temporary name, fsync and rename; on an object store a single PUT
is atomic already. Two attempts at one name write the same bytes, so either may end last.
"""

from __future__ import annotations

import builtins
import errno
import json
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast
from urllib.parse import quote, unquote

import fsspec  # pyright: ignore[reportMissingTypeStubs]
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from discl_ray.errors import IntegrityError, UnreadableError, unwritable
from discl_ray.process.calls import AGAIN
from discl_ray.process.masking import masked

ROW_GROUP = 64
"""Images per Parquet row group: small enough for random access."""

PROBED = 1 << 16
"""Bytes written to find out whether a folder can be written to."""

CHECKED = pads.ParquetFileFormat(
    default_fragment_scan_options=pads.ParquetFragmentScanOptions(page_checksum_verification=True)
)

DELETE = "delete it and "
"""How a remedy begins that a file which is gone does not need."""

Remedy: TypeAlias = str | Callable[[], str]
"""What to do about a damaged file, or a function that finds out, which may take requests."""

TEMPORARY = ".{name}.{token}.tmp"
"""A file that is being written."""


ARROW_SCHEMES = ("file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss", "mock")
"""Of URIs that pyarrow opens itself; fsspec knows more."""

_OPTIONS = re.compile(r"\?([a-z][a-z0-9_]*=[^?]*)$")
_PLAIN = "/%:@!$&'()*+,;=~"
"""What may stand in a URI's path as it is."""


class _Uri(NamedTuple):
    """A URI by its parts. What pyarrow would take for the end of a path belongs to it here."""

    scheme: str
    server: str
    """With a user, or a bucket."""
    path: str
    """As it is on the file system, without its first `/`."""
    options: str
    """`region=…&endpoint_override=…`; files have none."""

    @classmethod
    def of(cls, text: str) -> _Uri:
        scheme, _, rest = text.partition("://")
        options = ""
        found = None if scheme == "file" else _OPTIONS.search(rest)
        if found:
            options = found[1]
            rest = rest[: found.start()]
        server, _, path = rest.partition("/")
        return cls(scheme.lower(), server, unquote(path), options)

    def __str__(self) -> str:
        options = f"?{self.options}" if self.options else ""
        return f"{self.scheme}://{self.server}/{quote(self.path, safe='/')}{options}"


@lru_cache(maxsize=64)
def _opened(scheme: str, server: str, options: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a server or bucket, and the prefix of its paths; opened once a process."""
    return pafs.FileSystem.from_uri(str(_Uri(scheme, server, "", options)))


def reference(location: str, name: str) -> str:
    """The full name of a file under a local path or a URI; `Store.file` finds it."""
    scheme = location.partition("://")[0].lower() if "://" in location else ""
    if scheme not in ARROW_SCHEMES:
        return f"{location.rstrip('/')}/{name}"
    folder = _Uri.of(location)
    return str(folder._replace(path=f"{folder.path.rstrip('/')}/{name}".lstrip("/")))


def probe(folder: Path) -> Path:
    """Writes a nameless file to a folder, or to the existing one above it, and returns that folder.

    Raises OSError if that fails.
    """
    place = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(b"." * PROBED)
        file.flush()
        os.fsync(file.fileno())
    return place


SPECIAL = "is a pipe, a socket or a device"
"""Such a file is not read: that could block forever."""


def is_special(path: Path) -> bool:
    """Whether there is something at a path that is neither a file nor a folder."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # there is nothing; reading says so
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_regular(path: Path) -> None:
    """Raises OSError for what is SPECIAL."""
    if is_special(path):
        raise OSError(SPECIAL)


@dataclass(frozen=True)
class Store:
    """A folder on a file system. Names are relative and use `/`."""

    filesystem: pafs.FileSystem
    base: str

    @classmethod
    def at(cls, location: str | Path) -> Store:
        """A store at a local path, or at a URI of any scheme that pyarrow or fsspec knows.

        An example is `s3://bucket/folder`.
        """
        text = str(location)
        if "://" not in text:
            return cls(pafs.LocalFileSystem(), str(Path(text).absolute()))
        uri = _Uri.of(text)
        if uri.scheme in ARROW_SCHEMES:
            filesystem, base = _opened(uri.scheme, uri.server, uri.options)
            return cls(filesystem, f"{base.rstrip('/')}/{uri.path}".rstrip("/") or "/")
        filesystem, path = cast(Any, fsspec).core.url_to_fs(text)
        return cls(pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path)

    @classmethod
    def file(cls, name: str) -> tuple[Store, str]:
        """The folder of a file by its `reference`, and its name there."""
        if "://" in name:
            whole = cls.at(name)
            folder, _, last = whole.base.rpartition("/")
            return cls(whole.filesystem, folder), last
        folder, _, last = name.rpartition("/")
        return cls.at(folder or "/"), last

    @property
    def local(self) -> Path | None:
        """The folder as a path if it is on a local disk."""
        return Path(self.base) if isinstance(self.filesystem, pafs.LocalFileSystem) else None

    @property
    def name(self) -> str:
        """The folder's own name, the last part of its path."""
        return self.base.rsplit("/", 1)[-1]

    def path(self, name: str) -> str:
        """The full path of a name, for pyarrow."""
        return f"{self.base}/{name}" if name else self.base

    def within(self, name: str) -> Store:
        """The store of a subfolder."""
        return Store(self.filesystem, self.path(name))

    @property
    def parent(self) -> Store:
        """The store of the folder it lies in."""
        return Store(self.filesystem, self.base.rpartition("/")[0])

    def modified(self, name: str) -> float:
        """When a file was last written, in seconds since 1970; raises FileNotFoundError."""
        info = self.filesystem.get_file_info(self.path(name))
        if info.mtime_ns is None:
            raise FileNotFoundError(self.path(name))
        return info.mtime_ns / 1e9

    def exists(self, name: str) -> bool:
        """Whether a file of this name is there."""
        return self.filesystem.get_file_info(self.path(name)).type == pafs.FileType.File

    def list(self, name: str = "", suffix: str = "") -> list[str]:
        """Names of the files directly in a folder that end with `suffix`, sorted.

        Hidden files, whose names begin with a dot, are left out: locks, and what killed writes left
        behind. A folder that does not exist has no files.
        """
        files = self._children(name, pafs.FileType.File)
        prefix = f"{name}/" if name else ""
        shown = [file for file in files if file.endswith(suffix) and not file.startswith(".")]
        return [prefix + file for file in shown]

    def folders(self, name: str = "") -> builtins.list[str]:
        """Names of the folders directly in a folder, sorted; none if it does not exist."""
        return self._children(name, pafs.FileType.Directory)

    def _children(self, name: str, kind: pafs.FileType) -> builtins.list[str]:
        """Names of what is directly in a folder and of a kind, sorted."""
        selector = pafs.FileSelector(self.path(name), allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type == kind)

    def read(self, name: str) -> bytes:
        """A file's bytes; raises FileNotFoundError, and OSError for what is SPECIAL."""
        if self.local is not None:
            check_regular(self.local / name)
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole or not at all; raises StorageError if it cannot be written."""
        try:
            self._write(name, data)
        except OSError as error:
            raise unwritable(self.path(name), error) from error

    def _write(self, name: str, data: bytes) -> None:
        if self.local is None:
            with self.filesystem.open_output_stream(self.path(name)) as stream:
                stream.write(data)
            return
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(TEMPORARY.format(name=target.name, token=uuid.uuid4().hex[:8]))
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def probe(self) -> None:
        """Raises OSError unless a file can be written here; leaves none behind, nor a folder."""
        if self.local is not None:
            probe(self.local)
            return
        name = TEMPORARY.format(name="probe", token=uuid.uuid4().hex[:8])
        self._write(name, b"")
        self.filesystem.delete_file(self.path(name))

    def sweep(self) -> None:
        """Deletes what killed writes left behind, here and in all subfolders.

        Not while another process writes.
        """
        if self.local is not None:
            for temporary in self.local.rglob(TEMPORARY.format(name="*", token="*")):
                temporary.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Deletes a file if it is there."""
        if self.exists(name):
            self.filesystem.delete_file(self.path(name))

    @contextmanager
    def reading(self, name: str, remedy: Remedy = "") -> Generator[None]:
        """Turns what fails within into an error that names the file and the remedy.

        The default remedy is to delete the file. Raises IntegrityError if it is gone, cut short or
        garbled, UnreadableError if the disk or the network failed.
        """
        try:
            yield
        except FileNotFoundError as error:
            todo = remedy_text(remedy).removeprefix(DELETE)
            raise IntegrityError(f"{self.path(name)}: is gone; {todo}") from error
        except OSError as error:
            # An error with a number comes from the disk or the network, where deleting would not
            # help; Arrow's own have none.
            if error.errno:
                raise UnreadableError(
                    f"{self.path(name)}: cannot be read ({_short(error)}); {AGAIN}"
                ) from error
            raise self._garbled(name, error, remedy) from error
        except (pa.ArrowException, ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._garbled(name, error, remedy) from error

    def _garbled(self, name: str, error: Exception, remedy: Remedy) -> IntegrityError:
        why = f"no {error}" if isinstance(error, KeyError) else _short(error)
        place = self.path(name)
        return IntegrityError(f"{place}: is cut short or garbled ({why}); {remedy_text(remedy)}")

    def read_json(self, name: str, remedy: Remedy = "") -> Any:
        """A JSON file's content.

        Raises IntegrityError with the path and the remedy if it is gone, cut short or garbled.
        """
        with self.reading(name, remedy):
            return json.loads(self.read(name))

    def sound(self, name: str) -> bool:
        """Whether a file of JSON or Parquet is there and all of it can be read."""
        if not self.exists(name):
            return False
        try:
            self.read_json(name) if name.endswith(".json") else self.read_table(name)
        except IntegrityError:
            return False
        return True

    def write_json(self, name: str, value: object) -> None:
        """Writes JSON with sorted keys: equal values, equal bytes."""
        self.write(name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def read_table(
        self, name: str, columns: list[str] | None = None, remedy: Remedy = ""
    ) -> pa.Table:
        """A Parquet file; of `columns`, those that it has, without reading a byte of the others.

        Its path is not read as partitions. Raises IntegrityError with the path and the remedy if it
        is gone, cut short or garbled.
        """
        # One thread: one of Arrow's pool may release bytes that belong to Python after the
        # interpreter has ended, and abort the process.
        with self.reading(name, remedy):
            if columns is None:
                return open_parquet(pa.BufferReader(self.read(name))).read(use_threads=False)
            with self.filesystem.open_input_file(self.path(name)) as file:
                return open_parquet(file).read(columns, use_threads=False)

    def dataset(self, name: str) -> pads.Dataset:
        """A Parquet file, or all files of a folder, to be read in parts.

        Read it within `reading`: damage is found only then.
        """
        return pads.dataset(self.path(name), filesystem=self.filesystem, format=CHECKED)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Writes a Parquet file; image bytes are stored as they are, not compressed again."""
        self.write(name, parquet_bytes(table))


def open_parquet(source: Any) -> pq.ParquetFile:
    """An open Parquet file; pages are compared with their checksums when they are read."""
    return pq.ParquetFile(source, page_checksum_verification=True)


def parquet_bytes(table: pa.Table, starts: Sequence[int] | None = None) -> bytes:
    """A table as Parquet; equal tables give equal bytes.

    Row groups begin at the row numbers `starts`, ascending from 0; by default every ROW_GROUP rows.
    """
    sink = pa.BufferOutputStream()
    names = [n for n in table.column_names if n != "image"]
    compression = dict.fromkeys(names, "zstd")
    if "image" in table.column_names:
        compression["image.bytes"] = "none"
    begins = range(0, table.num_rows, ROW_GROUP) if starts is None else starts
    bounds = [*(begins or [0]), table.num_rows]
    options: dict[str, Any] = {
        "compression": compression,
        "use_dictionary": names,
        "write_statistics": names,
    }
    with pq.ParquetWriter(sink, table.schema, **options, write_page_checksum=True) as writer:
        for begin, end in pairwise(bounds):
            writer.write_table(table.slice(begin, end - begin), row_group_size=max(1, end - begin))
    return sink.getvalue().to_pybytes()


def remedy_text(remedy: Remedy) -> str:
    """A remedy as text."""
    text = remedy if isinstance(remedy, str) else remedy()
    return text or f"{DELETE}{AGAIN}"


def _short(error: object) -> str:
    """The first words of a library's message."""
    return masked(" ".join(str(error).split()))[:120]
