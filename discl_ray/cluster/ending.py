"""How an actor's process ends."""

from __future__ import annotations

import atexit
import os
import sys


def end_without_destructors() -> None:
    """Makes this actor's process end as soon as Python's own work is done.

    Ray 2.60 then takes down what its C++ core left behind, and may wait there for a lock that
    nobody gives back: the process would stay for good, with its memory, that of a GPU too. Does
    nothing outside of an actor.
    """
    import ray

    if ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None:
        atexit.unregister(_leave)
        atexit.register(_leave)


def _leave() -> None:
    """Ends the process; what was written is not lost."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)
