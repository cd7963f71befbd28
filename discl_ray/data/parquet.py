"""Parquet files with images in them, or with paths of image files."""

from __future__ import annotations

from discl_ray.data.config import ParquetConfig
from discl_ray.data.files import pick
from discl_ray.data.listing import Listing
from discl_ray.data.parquet_files import is_parquet, open_parquet, read_parquet
from discl_ray.data.root import open_root
from discl_ray.data.tabular import OPTIONAL, list_sources


def parquet(config: ParquetConfig, _seed: int) -> Listing:
    """All rows of all Parquet files under the root, files by name.

    A split comes from its column, else from the first word of a file's name or from a folder's;
    else it is drawn.

    Raises DataError naming the file if one cannot be read, lacks a column, or holds images or
    labels of another kind.
    """
    root = open_root(config.root)
    files = pick(root, is_parquet, "*.parquet", links=config.allow_links_outside)
    return list_sources(
        root,
        (open_parquet(root, file.path) for file in files),
        config.columns,
        optional=OPTIONAL,
        files=files,
        read=read_parquet,
        links=config.allow_links_outside,
    )
