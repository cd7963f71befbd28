"""What tests of spectra share.

A filter that keeps every image, and the dates of a store's files.
"""

import os
from pathlib import Path

import pyarrow as pa

from discl_ray.core.storage import Store
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.verify import check_planned, verify

LAX = FilterConfig(mode="absolute", threshold=-1.0)


def dates(store: Store) -> dict[Path, int]:
    """When each file of a local store was last written, in nanoseconds."""
    return {p: p.stat().st_mtime_ns for p in Path(store.base).rglob("*") if p.is_file()}


def check_whole(store: Store, plan: pa.Table) -> None:
    """Every planned row is committed once, and every byte is as it was committed."""
    check_planned(store, plan)
    assert verify(store).damaged == {}


def flip(store: Store, name: str, place: float = 0.5, *, keep_date: bool = False) -> None:
    """Changes a bit in a file."""
    file = Path(store.path(name))
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[int(len(data) * place)] ^= 1
    file.write_bytes(data)
    if keep_date:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
