"""How an actor's process ends."""

import atexit
import os
import time
from pathlib import Path
from typing import Any

import ray

from discl_ray.cluster.ending import end_without_destructors


class Actor:
    """Leaves a file when Python takes it down; handlers registered first are called last."""

    def __init__(self, file: str, *, at_once: bool) -> None:
        atexit.register(Path(file).touch)
        if at_once:
            end_without_destructors()

    def process(self) -> int:
        return os.getpid()


def ended(file: Path, *, at_once: bool) -> bool:
    """Whether anything ran after Python's newest handler when an actor's process ended."""
    kind: Any = ray.remote(num_cpus=0)(Actor)
    actor = kind.remote(str(file), at_once=at_once)
    process = ray.get(actor.process.remote())
    actor.__ray_terminate__.remote()
    limit = time.monotonic() + 30
    while Path(f"/proc/{process}").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    assert not Path(f"/proc/{process}").exists()
    return file.exists()


def test_nothing_runs_after_an_actor_that_ends_at_once(ray_local: None, tmp_path: Path) -> None:
    assert ended(tmp_path / "a", at_once=False)
    assert not ended(tmp_path / "b", at_once=True)


def test_a_driver_ends_as_ever(ray_local: None) -> None:
    before = atexit._ncallbacks()
    end_without_destructors()
    assert atexit._ncallbacks() == before
