"""A file system that is not local, and counts what is read of it."""

import io
from dataclasses import dataclass, field
from typing import Any

import pyarrow.fs as pafs
from fsspec.implementations.local import LocalFileSystem

from discl_ray.core.storage import Store


@dataclass
class Reads:
    """What was read."""

    sizes: dict[str, int] = field(default_factory=dict[str, int])
    """Bytes by the file's path."""

    @property
    def total(self) -> int:
        return sum(self.sizes.values())

    def of(self, part: str) -> int:
        """Bytes of the files whose path holds a text."""
        return sum(size for path, size in self.sizes.items() if part in path)


class _File(io.FileIO):
    """Counts the bytes that are read."""

    def __init__(self, path: str, reads: Reads) -> None:
        super().__init__(path, "rb")
        self.reads = reads

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size)
        path = str(self.name)
        self.reads.sizes[path] = self.reads.sizes.get(path, 0) + len(data)
        return data


class _Counting(LocalFileSystem):
    """fsspec's local file system, whose files are counted."""

    cachable = False

    def __init__(self, reads: Reads) -> None:
        super().__init__(auto_mkdir=True)
        self.reads = reads

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "rb":
            return _File(path, self.reads)
        return super().open(path, mode, **options)


def counted(store: Store) -> tuple[Store, Reads]:
    """The same folder on a file system that is not local, and what is read there."""
    reads = Reads()
    filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(_Counting(reads)))
    return Store(filesystem, store.base), reads
