# pyright: reportArgumentType=false
# (pyarrow's annotations leave out the forms by column that its documentation gives)
"""A run's files: written whole or not at all, on any file system pyarrow opens.

On a local disk a file appears by temporary name, fsync and rename; on an object store a single PUT is atomic already. Two
attempts at one name write the same bytes, so it does not matter which of them ends last.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

ROW_GROUP = 64
"""Images per Parquet row group: small enough for random access."""


@dataclass(frozen=True)
class Store:
    """A folder on a file system. Names are relative and use `/`."""

    filesystem: pafs.FileSystem
    base: str

    @classmethod
    def at(cls, location: str | Path) -> Store:
        """A store at a local path or at a URI such as `s3://bucket/folder`."""
        text = str(location)
        if "://" in text:
            return cls(*pafs.FileSystem.from_uri(text))
        return cls(pafs.LocalFileSystem(), str(Path(text).absolute()))

    @property
    def local(self) -> Path | None:
        """The folder as a path if it is on a local disk."""
        return Path(self.base) if isinstance(self.filesystem, pafs.LocalFileSystem) else None

    def path(self, name: str) -> str:
        """The full path of a name, for pyarrow."""
        return f"{self.base}/{name}" if name else self.base

    def within(self, name: str) -> Store:
        """The store of a subfolder."""
        return Store(self.filesystem, self.path(name))

    def exists(self, name: str) -> bool:
        """Whether a file of this name is there."""
        return self.filesystem.get_file_info(self.path(name)).type == pafs.FileType.File

    def list(self, name: str = "", suffix: str = "") -> list[str]:
        """Names of the files directly in a folder that end with `suffix`, sorted; empty if there is no such folder."""
        infos = self.filesystem.get_file_info(pafs.FileSelector(self.path(name), allow_not_found=True))
        prefix = f"{name}/" if name else ""
        return sorted(prefix + i.base_name for i in infos if i.type == pafs.FileType.File and i.base_name.endswith(suffix))

    def read(self, name: str) -> bytes:
        """A file's bytes; raises FileNotFoundError."""
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole or not at all."""
        if self.local is None:
            with self.filesystem.open_output_stream(self.path(name)) as stream:
                stream.write(data)
            return
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)

    def delete(self, name: str) -> None:
        """Deletes a file if it is there."""
        if self.exists(name):
            self.filesystem.delete_file(self.path(name))

    def read_json(self, name: str) -> Any:
        """A JSON file's content."""
        return json.loads(self.read(name))

    def write_json(self, name: str, value: object) -> None:
        """Writes JSON with sorted keys: equal values, equal bytes."""
        self.write(name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file, without reading partitions into its path."""
        return pq.ParquetFile(pa.BufferReader(self.read(name))).read(columns)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Writes a Parquet file; image bytes are stored as they are, not compressed again."""
        self.write(name, parquet_bytes(table))


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    names = [n for n in table.column_names if n != "image"]
    pq.write_table(
        table,
        sink,
        row_group_size=ROW_GROUP,
        compression={**dict.fromkeys(names, "zstd"), **({"image.bytes": "none"} if "image" in table.column_names else {})},
        use_dictionary=names,
        write_statistics=names,
    )
    return sink.getvalue().to_pybytes()
