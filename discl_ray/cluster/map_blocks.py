"""One function on every block of a table: small tables in this process, large ones by Ray Data.

And a few long calls, as Ray tasks. Inside a Ray task or actor, blocks are always processed in
place: a task that waits for other tasks may wait forever.
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
"""Seconds a canceled task is waited for."""

ALIKE_S = 3.0
"""Seconds within which the other tasks mostly end as well, if one found that nothing can work."""

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
    """Yields `work(block)` of every block, in any order; a block is never split.

    `weigh` names the column of the results that counts rows, if a result has not one row per input
    row. Ray wraps what `work` raises, so messages for users are better returned than raised.
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
        # Ray's types ask for a function of any kind of batch.
        untyped = cast(Any, work)
        packed = ray.data.from_arrow(cast(Any, blocks))
        dataset = packed.map_batches(untyped, batch_size=None, batch_format="pyarrow")
        batches = dataset.iter_batches(batch_size=None, batch_format="pyarrow")
        for done in cast("Iterable[pa.Table]", batches):
            progress.advance(done.num_rows if weigh is None else sum(done[weigh].to_pylist()))
            yield done
        progress.close()


def share(gpu: bool, cpus: int = 1) -> dict[str, Any]:
    """Ray's resource arguments of a process: one GPU, or `cpus` CPUs.

    A process with a GPU reserves no CPU, so that it never waits for one.
    """
    return {"num_cpus": 0, "num_gpus": 1} if gpu else {"num_cpus": cpus}


def as_tasks(
    work: Callable[..., Any], arguments: Sequence[Sequence[Any]], *, gpu: bool, cpus: int = 1
) -> Iterator[tuple[int, Any]]:
    """Yields (index, result) of `work(*arguments[index])` as Ray tasks finish; Ray must be running.

    Raises the DisclError that a task ended with; the other tasks are canceled.
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
        _cancel(list(waiting))


def _cancel(tasks: Sequence[Any]) -> None:
    """Cancels tasks and collects their errors: Ray prints errors that nobody collects."""
    import ray
    from ray.exceptions import RayError

    if not tasks:
        return
    # Ray 2.60 aborts the driver if a task that it cancels is just ending by itself. So those that
    # end alike are waited for, and none is cancelled by force, where that is more frequent.
    _, running = ray.wait(list(tasks), num_returns=len(tasks), timeout=ALIKE_S)
    for task in running:
        ray.cancel(task)
    for task in tasks:
        with suppress(RayError):
            ray.get(task, timeout=HEARING_S)


def in_ray_worker() -> bool:
    """Whether this process is a Ray task or actor."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    return ray.get_runtime_context().worker.mode == ray.WORKER_MODE
