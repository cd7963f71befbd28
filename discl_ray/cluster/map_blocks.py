"""One piece of work on every block of a table: few rows here, many by Ray Data. And a few long pieces, as Ray tasks.

Inside a Ray task or actor blocks are always worked on here: waiting in a task for other tasks may wait for ever.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

import pyarrow as pa

from discl_ray.cluster.session import ray_session
from discl_ray.errors import DisclError
from discl_ray.process.progress import Progress

HEARING_S = 10.0
"""A task that was ended is waited for no longer."""

SMALL = 5_000
"""Rows up to which starting Ray takes longer than reading their images."""


def map_blocks(
    blocks: list[pa.Table],
    work: Callable[[pa.Table], pa.Table],
    what: str,
    num_cpus: int | None,
    *,
    weigh: str | None = None,
) -> Iterator[pa.Table]:
    """`work` on every block, in any order. `weigh` names the column of the results that counts rows, if a result is not one each.

    A block is never divided. What `work` raises comes out as Ray wraps it, so what a user is meant to read is better returned.
    """
    total = sum(block.num_rows for block in blocks)
    if total <= SMALL or in_ray_worker():
        yield from map(work, blocks)
        return
    with ray_session(num_cpus=num_cpus, needs={"CPU": 1.0}):
        import ray
        from ray.data import DataContext

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        progress = Progress(total, what)
        dataset = ray.data.from_arrow(blocks).map_batches(
            work, batch_size=None, batch_format="pyarrow"
        )
        batches = cast(
            "Iterable[pa.Table]", dataset.iter_batches(batch_size=None, batch_format="pyarrow")
        )
        for done in batches:
            progress.advance(done.num_rows if weigh is None else sum(done[weigh].to_pylist()))
            yield done
        progress.close()


def share(gpu: bool, cpus: int = 1) -> dict[str, Any]:
    """Ray's keywords for a process: a GPU to itself, and then no CPU, so that it can never wait for one; or `cpus` of them."""
    return {"num_cpus": 0, "num_gpus": 1} if gpu else {"num_cpus": cpus}


def as_tasks(
    work: Callable[..., Any], arguments: Sequence[Sequence[Any]], *, gpu: bool, cpus: int = 1
) -> Iterator[tuple[int, Any]]:
    """(number, result) of `work` on each of the arguments, in the order in which they are done: a Ray task each. Ray has to be there.

    Raises the DisclError that a task ends with.
    """
    import ray
    from ray.exceptions import RayTaskError

    task = ray.remote(**share(gpu, cpus))(work)
    waiting = {task.remote(*given): number for number, given in enumerate(arguments)}
    try:
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            try:
                result = ray.get(done)
            except RayTaskError as error:
                if isinstance(error.cause, DisclError):
                    raise error.cause from None
                raise
            yield waiting.pop(done), result
    finally:
        _drop(list(waiting))


def _drop(tasks: Sequence[Any]) -> None:
    """Ends what is left of tasks of which one failed, and hears their errors: Ray prints those that nobody has heard."""
    import ray
    from ray.exceptions import RayError

    for task in tasks:
        # not by force: Ray 2.60 aborts the driver if a task it has killed turns out to have ended by itself
        ray.cancel(task)
    for task in tasks:
        with suppress(RayError):
            ray.get(task, timeout=HEARING_S)


def in_ray_worker() -> bool:
    """Whether this process is a Ray task or actor."""
    ray = sys.modules.get("ray")
    return (
        ray is not None
        and ray.is_initialized()
        and ray.get_runtime_context().worker.mode == ray.WORKER_MODE
    )
