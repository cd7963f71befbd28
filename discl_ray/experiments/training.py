"""One row of a table under Ray Train: trained, and evaluated on test."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from discl_ray.cluster.inventory import present
from discl_ray.cluster.map_blocks import as_tasks
from discl_ray.config import Config, dump_config
from discl_ray.core.metrics import Scores
from discl_ray.core.run_directory import CONFIG, locked
from discl_ray.evaluate.held_out import evaluate_test
from discl_ray.experiments.rows import PlannedRun, count_epochs, plan_run, table_of
from discl_ray.experiments.run_workers import with_workers
from discl_ray.report.history import write_history_report
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.images.table import open_table


def train_row(
    config: Config,
    spectrum: Spectrum,
    *,
    label: str,
    start: dict[str, Tensor] | None,
    is_start: bool = False,
) -> tuple[PlannedRun, dict[str, Tensor]]:
    """Trains one row under Ray Train (or the start run); finished runs are not run again."""
    from discl_ray.train.run_files import read_history
    from discl_ray.train.trainer import train

    planned = plan_run(config, spectrum, start=is_start)
    with locked(planned.store):
        planned = with_workers(planned, label)
        table = table_of(planned.config, spectrum)
        if is_start:
            planned = count_epochs(planned, open_table(table))
        planned.store.write(CONFIG, dump_config(planned.config).encode())
        weights = train(
            planned.job,
            run=planned.store,
            table=table,
            epochs=planned.epochs,
            label=label,
            start=start,
        )
        write_history_report(planned.store, read_history(planned.store))
    return planned, weights


def evaluate_on_test(planned: PlannedRun, weights: dict[str, Tensor], spectrum: Spectrum) -> Scores:
    """The row's scores on test, predicted on a GPU of the cluster if it was trained on one."""
    judge = partial(
        evaluate_test,
        planned.job,
        weights,
        spectrum=spectrum,
        run=planned.store,
        config_hash=planned.config_hash,
    )
    if not planned.config.train.on_gpu or not present(planned.config.run).gpus:
        return judge(device="cpu")
    ((_, scores),) = as_tasks(lambda: judge(), [()], gpu=True)  # Ray takes no partial function
    return scores
