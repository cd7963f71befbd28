"""The tiny configuration that whole runs of tests use, and where the project lies."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from discl_ray.config import Config, load_config

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "plan.replicas=1",
    "plan.num_steps=4",
    "plan.lams=[0,0.5]",
    "plan.shard_steps=20",
    "hard.probe_sources=1",
    "hard.below=4",
    "data.head=8",
    "data.tail=2",
    "generator.actors=1",
)
"""The embedded task in half a minute: 8 to 2 images a class, two λ, four steps."""


def tiny_config(root: Path, *overrides: str) -> Config:
    """The tiny configuration with its runs below `root`."""
    return load_config(ROOT / "conf" / "digits_lt.yaml", [f"run.root={root}", *TINY, *overrides])


@contextmanager
def promptly() -> Iterator[None]:
    """Fails after more than 5 seconds: what a user who named a wrong folder waits for at most."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 5
