"""What tests of spectra share.

A filter that keeps every image, and the dates of a store's files.
"""

from pathlib import Path

from discl_ray.core.storage import Store
from discl_ray.spectrum.config import FilterConfig

LAX = FilterConfig(mode="absolute", threshold=-1.0)


def dates(store: Store) -> dict[Path, int]:
    """When each file of a local store was last written, in nanoseconds."""
    return {p: p.stat().st_mtime_ns for p in Path(store.base).rglob("*") if p.is_file()}
