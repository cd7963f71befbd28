"""Ray Data graphs that predict a class for each real image: images in, PREDICTIONS out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from discl_ray.cluster.watchdog import Snapshot, Watchdog
from discl_ray.config import RunConfig
from discl_ray.core import columns
from discl_ray.core.schema import PREDICTIONS
from discl_ray.core.storage import Store
from discl_ray.process.progress import Progress

if TYPE_CHECKING:
    from ray.data import Dataset

PREDICTED = ("train", "val")
"""Splits that are predicted; nobody looks at test."""

ROWS = 256
"""Images of a block on its way to the actors."""

Look = Callable[[Progress], Snapshot]
"""What the watchdog is shown of a job, given how far it is."""


def predicted_rows(samples: pa.Table) -> pa.Table:
    """The rows of SAMPLES that are predicted."""
    return columns.rows_in(samples, "split", PREDICTED)


def stream_images(samples: Store) -> Dataset:
    """`sample_id`, `label` and `image` of all predicted rows of SAMPLES, in blocks of ROWS."""
    import ray
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Ray Data logs a traceback of every error that it also raises
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    names: list[str] = []
    for split in PREDICTED:
        names += samples.list(split, ".parquet")
    files = ray.data.from_arrow([pa.table({"file": [name]}) for name in names])
    rows = files.map_batches(cast(Any, _ReadImages(samples)), batch_size=1, batch_format="pyarrow")
    return rows.repartition(target_num_rows_per_block=ROWS)


@dataclass(frozen=True)
class _ReadImages:
    """Reads the file that a batch of one row names."""

    store: Store

    def __call__(self, batch: pa.Table) -> pa.Table:
        return self.store.read_table(batch["file"][0].as_py(), ["sample_id", "label", "image"])


@contextmanager
def watched(progress: Progress, look: Look, run: RunConfig) -> Iterator[None]:
    """Watches for stalls while the work is done; closes the progress line at the end."""
    warning_s, limit_s = run.stall_warning_s, run.stall_limit_s
    try:
        with Watchdog(lambda: look(progress), warning_s=warning_s, limit_s=limit_s):
            yield
    finally:
        progress.close()


def collect_predictions(predicted: Dataset, total: int, look: Look, run: RunConfig) -> pa.Table:
    """PREDICTIONS of a graph that is run here, in the order in which blocks are done."""
    progress = Progress(total, "images judged")
    parts = [PREDICTIONS.empty_table()]
    with watched(progress, look, run):
        for batch in predicted.iter_batches(batch_size=None, batch_format="pyarrow"):
            part = cast(pa.Table, batch).cast(PREDICTIONS)
            parts.append(part)
            progress.advance(part.num_rows)
    return pa.concat_tables(parts).combine_chunks()
