"""Data sets become SAMPLES here: one file a data set, one signature, one dict.

A reader takes (config, seed) and returns one SAMPLES table with the splits train, val and test. Test rows are written apart,
and only `discl_ray.evaluate` opens them.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from discl_ray.data.config import DataConfig
from discl_ray.data.digits_lt import digits_lt

READERS: dict[str, Callable[[DataConfig, int], pa.Table]] = {"digits_lt": digits_lt}
"""Data sets by the name the configuration uses."""


def read_samples(config: DataConfig, seed: int) -> pa.Table:
    """The configured data set as a SAMPLES table."""
    return READERS[config.name](config, seed)


__all__ = ["READERS", "DataConfig", "read_samples"]
