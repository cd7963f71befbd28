"""Parquet files with a row an image, listed and read."""

import os

import pyarrow as pa
import pyarrow.parquet as pq

from discl_ray.data.config import ParquetConfig
from discl_ray.data.parquet import parquet
from discl_ray.errors import ImageError

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def listed(root, **config):
    return parquet(ParquetConfig(root=str(root), **config), 0)


def cells(listing, *columns):
    return list(zip(*(listing.table[c].to_pylist() for c in columns), strict=True))


def read(listing, rows=None):
    table = listing.table if rows is None else listing.table.take(rows)
    return [i.reason if isinstance(i, ImageError) else i for i in listing.read(listing.root, table)]


def write(file, row_group_size=3, **columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file, row_group_size=row_group_size)


def encoded(count, start=0):
    return [f"image {start + i}".encode() for i in range(count)]


class Trap:
    """Unpickling it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)
