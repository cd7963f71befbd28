"""A run's files: written whole or not at all, on any file system pyarrow opens.

On a local disk a file appears by temporary name, fsync and rename; on an object store a single PUT
is atomic already. `write` replaces what has the name; `create` leaves it: of two writers that make
different bytes under one name, the first wins, on a disk (by a hard link) and on an object store
(by a conditional PUT).
"""

from __future__ import annotations

import builtins
import errno
import json
import os
import re
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast
from urllib.parse import quote, unquote

import fsspec  # pyright: ignore[reportMissingTypeStubs]
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from discl_ray.core.objects import Objects, open_s3
from discl_ray.errors import (
    NO_BUCKET,
    IntegrityError,
    UnreadableError,
    is_no_answer,
    trouble_of_store,
    unwritable,
)
from discl_ray.process.calls import AGAIN
from discl_ray.process.masking import masked

ROW_GROUP = 64
"""Images per Parquet row group: small enough for random access."""

PROBED = 1 << 16
"""Bytes written to find out whether a folder can be written to."""

CHECKED = pads.ParquetFileFormat(
    default_fragment_scan_options=pads.ParquetFragmentScanOptions(page_checksum_verification=True)
)
"""Parquet whose pages' checksums are verified; by default a dataset does not."""

PAUSES_S = (0.2, 1.0, 5.0, 10.0)
"""Between attempts to read from an object store that fails."""

DELETE = "delete it and "
"""How a remedy begins that a file which is gone does not need."""

T = TypeVar("T")

Remedy: TypeAlias = str | Callable[[], str]
"""What to do about a damaged file, or a function that finds out, which may take requests."""

TEMPORARY = ".{name}.{token}.tmp"
"""Name of a file that is being written: hidden, and not the final one."""

ARROW_SCHEMES = ("file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss", "mock")
"""Schemes of URIs that pyarrow opens itself; fsspec opens the others it knows."""

UNOPENED = (OSError, ValueError, ImportError, pa.ArrowException)
"""What pyarrow and fsspec raise for a URI that cannot be opened."""

_OPTIONS = re.compile(r"\?([a-z][a-z0-9_]*=[^?]*)$")


class _Uri(NamedTuple):
    """The parts of a URI. A `?` that begins no option is part of the path, unlike in pyarrow."""

    scheme: str
    server: str
    """Host with user and port, or a bucket; may be empty."""
    path: str
    """As on the file system: without escapes and without the leading `/`."""
    options: str
    """`region=…&endpoint_override=…` as pyarrow reads them; empty for scheme `file`."""

    @classmethod
    def of(cls, text: str) -> _Uri:
        """Splits a URI `scheme://server/path?options`."""
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
        path = quote(self.path, safe="/")
        return f"{self.scheme}://{self.server}/{path}{options}"


@lru_cache(maxsize=64)
def _opened(scheme: str, server: str, options: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a server or bucket, and the prefix of its paths.

    Cached: each process connects to a server once.
    """
    root = _Uri(scheme, server, "", options)
    return pafs.FileSystem.from_uri(str(root))


def reference(location: str, name: str) -> str:
    """The path or URI of a file in a folder; `Store.file` opens what it names."""
    scheme, separator, _ = location.partition("://")
    if not separator or scheme.lower() not in ARROW_SCHEMES:
        folder = location.rstrip("/")
        return f"{folder}/{name}"
    # By parts: options of a bucket stay at the end, and the name is escaped.
    uri = _Uri.of(location)
    folder = uri.path.rstrip("/")
    path = f"{folder}/{name}".lstrip("/")
    return str(uri._replace(path=path))


def probe(folder: Path) -> Path:
    """Checks that a folder, or the nearest existing one above it, can be written to.

    Writes PROBED bytes to a temporary file there, so that a full disk is found, too. Returns the
    folder that was written to. Raises OSError if that fails, NotADirectoryError for a file.
    """
    places = (folder, *folder.parents)
    # lexists: a link to nothing is in the way of a folder of that name.
    place = next(place for place in places if os.path.lexists(place))
    if not place.is_dir():
        why = os.strerror(errno.ENOTDIR)
        raise NotADirectoryError(errno.ENOTDIR, why, str(place))
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(b"." * PROBED)
        file.flush()
        os.fsync(file.fileno())
    return place


SHORT = 120
"""Characters of a library's message that an error cites."""

SPECIAL = "is a pipe, a socket or a device"
"""Reading such a file could block forever, so none is read."""


def is_special(path: Path | str) -> bool:
    """Whether a path names something other than a file or a folder; False if nothing is there."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # nothing is there; the error comes when it is read
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_regular(path: Path) -> None:
    """Raises OSError if a path names a pipe, a socket or a device."""
    if is_special(path):
        raise OSError(SPECIAL)


class Stamp(NamedTuple):
    """What a listing says of a file. A file that has another stamp later was written again."""

    size: int
    """In bytes."""
    date: int | None
    """When it was written, in nanoseconds since 1970; None where the file system does not say."""


class _Written(NamedTuple):
    """How paths of a file system are written as URIs; by default they are left as they are."""

    start: str = ""
    """Beginning of the paths that a URI has something else for."""
    server: str = ""
    """What it has instead: scheme and server."""
    options: str = ""
    """What it ends with."""
    escaped: bool = False
    """Whether `%` and `?` have a meaning in it."""

    def uri_of(self, path: str) -> str:
        """The URI of a path, without passwords."""
        rest = path.removeprefix(self.start)
        if self.escaped:
            rest = rest.replace("%", "%25").replace("?", "%3F")
        options = f"?{self.options}" if self.options else ""
        return masked(f"{self.server}{rest}{options}")


@dataclass(frozen=True)
class Store:
    """A folder on a file system, which need not exist yet.

    Names of files and subfolders are relative to it and use `/`.
    """

    filesystem: pafs.FileSystem
    base: str
    """The folder's path on the file system, without a trailing `/`."""
    written: _Written = field(default=_Written(), compare=False, repr=False, kw_only=True)
    """How its paths are shown to people."""

    @classmethod
    def at(cls, location: str | Path) -> Store:
        """The store at a local path, or at a URI such as `s3://bucket/folder`.

        The scheme is one that pyarrow or fsspec knows. A relative path is made absolute. Raises
        one of UNOPENED for a URI that cannot be opened.
        """
        text = str(location)
        if "://" not in text:
            path = Path(text).absolute()
            return cls(pafs.LocalFileSystem(), str(path))
        uri = _Uri.of(text)
        if uri.scheme == "s3":
            bucket = uri.server.rpartition("@")[2]
            if not bucket:
                raise ValueError("a URI s3://bucket/folder names a bucket")
            base = f"{bucket}/{uri.path}"
            written = _Written(bucket, f"s3://{uri.server}", uri.options, escaped=True)
            return cls(open_s3(uri.server, uri.options), base.rstrip("/"), written=written)
        if uri.scheme in ARROW_SCHEMES:
            filesystem, prefix = _opened(uri.scheme, uri.server, uri.options)
            start = prefix.rstrip("/")
            base = f"{start}/{uri.path}"
            server = f"{uri.scheme}://{uri.server}"
            written = _Written(start, server, uri.options, escaped=True)
            if uri.scheme == "file":
                written = _Written()
            return cls(filesystem, base.rstrip("/") or "/", written=written)
        filesystem, path = cast(Any, fsspec).core.url_to_fs(text)
        # `memory://a/b` is /a/b there, and `http://a/b` itself.
        before = text.rstrip("/").removesuffix(path)
        written = _Written("", before)
        return cls(pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path, written=written)

    @classmethod
    def file(cls, name: str) -> tuple[Store, str]:
        """The folder and the name of a file, from its absolute path or its URI (`reference`)."""
        if "://" in name:
            whole = cls.at(name)
            return whole.parent, whole.name
        folder, _, last = name.rpartition("/")
        return cls.at(folder or "/"), last

    @property
    def local(self) -> Path | None:
        """The folder as a path if it is on a local file system, otherwise None."""
        if isinstance(self.filesystem, pafs.LocalFileSystem):
            return Path(self.base)
        return None

    @property
    def objects(self) -> Objects | None:
        """Writing into the bucket; None unless the folder is on an object store that has it."""
        return Objects.of(self.filesystem)

    def has_bucket(self) -> bool:
        """Whether the bucket is there; true of a folder that is in none."""
        if self.objects is None:
            return True
        bucket = self.base.partition("/")[0]
        return self.filesystem.get_file_info(bucket).type != pafs.FileType.NotFound

    @property
    def name(self) -> str:
        """The last part of the folder's path."""
        return self.base.rsplit("/", 1)[-1]

    def path(self, name: str) -> str:
        """The path of a file or subfolder on the file system; of the folder if `name` is empty."""
        return f"{self.base}/{name}" if name else self.base

    def location(self, name: str = "") -> str:
        """The same for people: the URI, which `at` opens, or the path if it is on a local disk."""
        path = self.path(name)
        return self.written.uri_of(path)

    def within(self, name: str) -> Store:
        """The store of a subfolder."""
        return Store(self.filesystem, self.path(name), written=self.written)

    @property
    def parent(self) -> Store:
        """The store of the folder above."""
        above = self.base.rpartition("/")[0]
        return Store(self.filesystem, above, written=self.written)

    def kind(self) -> pafs.FileType:
        """Whether there is a folder, a file or nothing; raises OSError if that cannot be found out.

        An object store is asked by obstore first: pyarrow takes minutes to give up a server that
        is down, and does not tell why credentials are refused. pyarrow has the last word, as it
        finds credentials in more places.
        """
        refusal = None if self.objects is None else self.objects.refusal(self.base)
        if refusal is not None and is_no_answer(str(refusal)):
            raise refusal
        try:
            return self.filesystem.get_file_info(self.base).type
        except OSError as error:
            if refusal is None:
                raise
            raise refusal from error

    def modified(self, name: str) -> float:
        """When a file was last written, in seconds since 1970; raises FileNotFoundError."""
        info = self.filesystem.get_file_info(self.path(name))
        if info.mtime_ns is None:
            raise FileNotFoundError(self.path(name))
        return info.mtime_ns / 1e9

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name; a folder is none."""
        info = self.filesystem.get_file_info(self.path(name))
        return info.type == pafs.FileType.File

    def list(self, name: str = "", suffix: str = "") -> list[str]:
        """Names of the files directly in a folder that end with `suffix`, sorted.

        Hidden files, whose names begin with a dot, are left out: locks, and what killed writes left
        behind. A folder that does not exist has no files.
        """
        files = self._children(name, pafs.FileType.File)
        prefix = f"{name}/" if name else ""
        ending = [file for file in files if file.endswith(suffix)]
        shown = [file for file in ending if not file.startswith(".")]
        return [prefix + file for file in shown]

    def broken_links(self, name: str, suffix: str) -> builtins.list[str]:
        """Names of the symbolic links in a folder that lead to no file, which `list` leaves out."""
        if self.local is None:
            return []
        prefix = f"{name}/" if name else ""
        entries = sorted((self.local / name).glob(f"[!.]*{suffix}"))
        links = [entry for entry in entries if entry.is_symlink()]
        return [prefix + link.name for link in links if not os.path.exists(link)]

    def stamps(self, name: str, suffix: str = "") -> dict[str, Stamp]:
        """Sizes and dates of the files that `list` names, from one listing."""
        selector = pafs.FileSelector(self.path(name), allow_not_found=True)
        found: dict[str, Stamp] = {}
        for info in self.filesystem.get_file_info(selector):
            file = info.base_name
            if info.type == pafs.FileType.File and file.endswith(suffix) and file[0] != ".":
                found[f"{name}/{file}"] = Stamp(info.size or 0, info.mtime_ns)
        return dict(sorted(found.items()))

    def folders(self, name: str = "") -> builtins.list[str]:
        """Names of the folders directly in a folder, sorted; none if it does not exist."""
        return self._children(name, pafs.FileType.Directory)

    def _children(self, name: str, kind: pafs.FileType) -> builtins.list[str]:
        """Names of what is directly in a folder and of a kind, sorted."""
        selector = pafs.FileSelector(self.path(name), allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type == kind)

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises FileNotFoundError if it is not there, OSError if it cannot be read, or if it is a
        pipe, a socket or a device.
        """
        if self.local is not None:
            check_regular(self.local / name)
        if self.objects is not None:
            # One request; pyarrow takes two, and gives up if the first answer is an error longer
            # than the file.
            found = self.objects.get(self.path(name))
            if found is None:
                raise FileNotFoundError(self.path(name))
            return found[0]
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole or not at all, replacing one of that name.

        Missing folders are made. Raises StorageError if it cannot be written.
        """
        try:
            self._write(name, data)
        except OSError as error:
            raise unwritable(self.location(name), error) from error

    def _write(self, name: str, data: bytes) -> None:
        """Like `write`; raises OSError."""
        if self.local is not None:
            with _half_written(self.local / name, data) as temporary:
                os.replace(temporary, self.local / name)
        elif self.objects is not None:
            self.objects.put(self.path(name), data)
        else:
            with self.filesystem.open_output_stream(self.path(name)) as stream:
                stream.write(data)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file whole or not at all, unless there is one of that name, which stays.

        Returns whether the file holds these bytes then. Of two writers at once one wins. (Neither
        is sure where a file system has no hard links, or is opened by fsspec.) Missing folders are
        made. Raises StorageError if it cannot be written.
        """
        try:
            return self._create(name, data)
        except OSError as error:
            raise unwritable(self.location(name), error) from error

    def _create(self, name: str, data: bytes) -> bool:
        """Like `create`; raises OSError."""
        if self.objects is not None:
            return self.objects.create(self.path(name), data)
        if self.local is not None and not self.exists(name):
            with _half_written(self.local / name, data) as temporary:
                if _linked(temporary, self.local / name):
                    return True
        if self.exists(name):
            return self.read(name) == data
        self._write(name, data)
        return True

    def probe(self) -> None:
        """Checks that a file can be written here, and leaves neither file nor folder behind.

        On an object store that it can be listed and read, too, and that conditional writes are
        what they should be. Raises OSError if one of it cannot be done.
        """
        if self.local is not None:
            probe(self.local)
            return
        name = _temporary_name("probe")
        path = self.path(name)
        if self.objects is None:
            self._write(name, b"")
            self.filesystem.delete_file(path)
            return
        created = self.objects.create(path, b"first")
        try:
            replaced = self.objects.create(path, b"second")
            if not created or replaced or self.read(name) != b"first":
                why = "the server has no conditional writes (If-None-Match)"
                raise OSError(errno.ENOTSUP, why)
            self.list(name)
        finally:
            self.objects.delete(path)

    def sweep(self) -> None:
        """Deletes the temporary files of killed writes, here and in all subfolders.

        Does nothing on an object store, where a killed write leaves nothing. Must not be called
        while another process writes here: that one's files would be deleted.
        """
        if self.local is None:
            return
        pattern = TEMPORARY.format(name="*", token="*")
        for temporary in self.local.rglob(pattern):
            temporary.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Deletes a file; does nothing if it is not there. Raises OSError if that fails."""
        if self.objects is not None:
            # Not by pyarrow, which would write an empty object in place of the folder.
            self.objects.delete(self.path(name))
        elif self.exists(name):
            self.filesystem.delete_file(self.path(name))

    @contextmanager
    def reading(self, name: str, remedy: Remedy = "") -> Generator[None]:
        """A context in which an error names the file that is being read and what to do.

        The default remedy is to delete the file and run again. Raises IntegrityError if the file
        is missing or damaged, UnreadableError if the disk or the network failed.
        """
        try:
            yield
        except FileNotFoundError as error:
            self._check_bucket(name)
            todo = remedy_text(remedy).removeprefix(DELETE)
            path = self.location(name)
            raise IntegrityError(f"{path}: is gone; {todo}") from error
        except OSError as error:
            # An error with a number comes from the disk or the network, where deleting would not
            # help; Arrow's own have none, and an object store's are known by their words.
            trouble = trouble_of_store(str(error))
            if error.errno or trouble is not None:
                path = self.location(name)
                why, todo = trouble or (_short(error), AGAIN)
                raise UnreadableError(f"{path}: cannot be read ({why}); {todo}") from error
            raise self._garbled(name, error, remedy) from error
        except (pa.ArrowException, ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._garbled(name, error, remedy) from error

    def _check_bucket(self, name: str) -> None:
        """Raises UnreadableError if it is the bucket that is gone, and not the file alone."""
        if not self.has_bucket():
            path = self.location(name)
            why, todo = NO_BUCKET
            raise UnreadableError(f"{path}: cannot be read ({why}); {todo}")

    def _garbled(self, name: str, error: Exception, remedy: Remedy) -> IntegrityError:
        """The error for a damaged file; `error` is what a parser raised."""
        # A KeyError's message is the missing key alone.
        why = f"no {error}" if isinstance(error, KeyError) else _short(error)
        path = self.location(name)
        todo = remedy_text(remedy)
        return IntegrityError(f"{path}: is cut short or garbled ({why}); {todo}")

    def read_json(self, name: str, remedy: Remedy = "") -> Any:
        """The value in a JSON file; raises errors like `reading`."""
        with self.reading(name, remedy):
            return json.loads(self.read(name))

    def sound(self, name: str) -> bool:
        """Whether a file is there and can be read to its end, as JSON or Parquet by its suffix.

        Raises UnreadableError if the disk or the network failed.
        """
        if not self.exists(name):
            return False
        try:
            if name.endswith(".json"):
                self.read_json(name)
            else:
                self.read_table(name)
        except IntegrityError:
            return False
        return True

    def write_json(self, name: str, value: object) -> None:
        """Writes JSON with sorted keys, so that equal values give equal bytes.

        Raises StorageError if it cannot be written.
        """
        self.write(name, json_bytes(value))

    def read_table(
        self, name: str, columns: list[str] | None = None, remedy: Remedy = ""
    ) -> pa.Table:
        """The table in a Parquet file; raises errors like `reading`.

        `columns` (default: all) limits what is read; names that the file lacks are ignored. Folder
        names such as `lam_pct=50` add no column.
        """
        # One thread: one of Arrow's pool may release bytes that belong to Python after the
        # interpreter has ended, and abort the process.
        with self.reading(name, remedy):
            if columns is None:
                whole = pa.BufferReader(self.read(name))
                return open_parquet(whole).read(use_threads=False)
            return self.patiently(lambda: self._read_columns(name, columns))

    def _read_columns(self, name: str, columns: builtins.list[str]) -> pa.Table:
        with self.filesystem.open_input_file(self.path(name)) as file:
            return open_parquet(file).read(columns, use_threads=False)

    def patiently(self, read: Callable[[], T]) -> T:
        """What a function reads, which is called again while the object store fails.

        pyarrow asks again by itself, but not for parts of files that are shorter than the error.
        """
        for pause in PAUSES_S:
            try:
                return read()
            except OSError as error:
                if not is_no_answer(str(error)):
                    raise
                time.sleep(pause)
        return read()

    def dataset(self, name: str) -> pads.Dataset:
        """A Parquet file, or all files of a folder, as a dataset to filter or read in parts.

        Nothing is read yet: read it within `reading`, which names a damaged file.
        """
        path = self.path(name)
        return pads.dataset(path, filesystem=self.filesystem, format=CHECKED)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Writes a table as `parquet_bytes` encodes it; raises StorageError if it cannot."""
        self.write(name, parquet_bytes(table))


def json_bytes(value: object) -> bytes:
    """JSON with sorted keys."""
    text = json.dumps(value, indent=2, sort_keys=True)
    return f"{text}\n".encode()


def open_parquet(source: Any) -> pq.ParquetFile:
    """Opens a path or a file of pyarrow as Parquet; a page's checksum is verified on reading."""
    return pq.ParquetFile(source, page_checksum_verification=True)


def parquet_bytes(table: pa.Table, starts: Sequence[int] | None = None) -> bytes:
    """A table encoded as Parquet; equal tables give equal bytes.

    Columns are compressed with zstd, except the bytes of `image`, which are compressed already.
    `starts` are the rows at which row groups begin, ascending from 0; by default every ROW_GROUP
    rows.
    """
    sink = pa.BufferOutputStream()
    names = [name for name in table.column_names if name != "image"]
    compression = dict.fromkeys(names, "zstd")
    if "image" in table.column_names:
        compression["image.bytes"] = "none"
    begins = starts
    if begins is None:
        begins = range(0, table.num_rows, ROW_GROUP)
    # A table without rows gets one empty group.
    bounds = [*(begins or [0]), table.num_rows]
    # Neither for images: all are different, and their least and greatest bytes say nothing.
    options: dict[str, Any] = {
        "compression": compression,
        "use_dictionary": names,
        "write_statistics": names,
    }
    with pq.ParquetWriter(sink, table.schema, **options, write_page_checksum=True) as writer:
        for begin, end in pairwise(bounds):
            rows = end - begin
            writer.write_table(table.slice(begin, rows), row_group_size=max(1, rows))
    return sink.getvalue().to_pybytes()


@contextmanager
def _half_written(target: Path, data: bytes) -> Generator[Path]:
    """A hidden file with these bytes beside a target, which gets its name or is deleted."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: a rename is atomic only within one file system.
    temporary = target.with_name(_temporary_name(target.name))
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            # Else a power cut could leave the new name on an empty file.
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _linked(temporary: Path, target: Path) -> bool:
    """Gives a file a second name, unless that is taken or the file system has one name a file."""
    try:
        os.link(temporary, target)
    except OSError:
        return False
    return True


def remedy_text(remedy: Remedy) -> str:
    """A remedy as text; if it is empty, to delete the file and run again."""
    text = remedy if isinstance(remedy, str) else remedy()
    return text or f"{DELETE}{AGAIN}"


def _short(error: object) -> str:
    """A library's message on one line, without secrets, at most SHORT characters."""
    one_line = " ".join(str(error).split())
    return masked(one_line)[:SHORT]


def _temporary_name(name: str) -> str:
    """A name of its own for a file that becomes `name`."""
    token = uuid.uuid4().hex[:8]
    return TEMPORARY.format(name=name, token=token)
