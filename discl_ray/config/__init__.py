"""One configuration for the whole path: conf/*.yaml, then `key=value`, then pydantic.

YAML holds values, not code: no interpolation, no environment. All problems are reported at once,
before anything is started or written. Only jobs, the doctor and tests see the whole `Config`; each
step gets its own part.
"""

from discl_ray.config.aliases import ALIASES, renamed
from discl_ray.config.load import load_config
from discl_ray.config.problems import sentences
from discl_ray.config.whole import (
    PHASE_1,
    PHASE_2,
    PLUMBING,
    Config,
    RunConfig,
    dump_config,
    part_hash,
    recorded_config,
    with_values,
)

__all__ = [
    "ALIASES",
    "PHASE_1",
    "PHASE_2",
    "PLUMBING",
    "Config",
    "RunConfig",
    "dump_config",
    "load_config",
    "part_hash",
    "recorded_config",
    "renamed",
    "sentences",
    "with_values",
]
