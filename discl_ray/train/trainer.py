"""The Ray Train edge: the loop under TorchTrainer, with checkpoints and the controller's actor.

A run that was killed is started again by the same command and goes on from its last readable
checkpoint; a finished one is not run again.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from discl_ray.cluster.ending import end_without_destructors
from discl_ray.core.lease import check_token, token_of
from discl_ray.core.storage import Store
from discl_ray.curriculum.actor import ActorController, start_controller
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.models.device import training_device
from discl_ray.train.checkpoint import STATE, Weights, kept_weights, save_checkpoint
from discl_ray.train.checkpoint_list import RAY_TRAIN, log_where_it_goes_on, newest_readable
from discl_ray.train.config import TrainConfig
from discl_ray.train.failures import Final, reason_of
from discl_ray.train.gpu_workers import OnGpu
from discl_ray.train.images.table import TableRef, open_table
from discl_ray.train.job import history_rows
from discl_ray.train.learners.learner import TrainJob, World
from discl_ray.train.loop import Report, loop
from discl_ray.train.run_files import (
    METRICS,
    MODEL,
    finished_weights,
    load_weights,
    read_history,
    write_history,
    write_manifest,
    write_tensorboard,
)

log = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints: the last, and the one before in case the last was cut short."""

PLACEMENT_TRIES = 10
"""How often Ray Train tries to place its workers, which fails while the cluster has no room."""


@dataclass(frozen=True, kw_only=True)
class WorkerArguments:
    """What each worker is sent."""

    job: TrainJob
    run: Store
    table: TableRef
    start: Weights | None
    controller: Any
    """The actor's handle."""
    epochs: int
    lock: str
    """Shows that the driver holds the run."""


def train(
    job: TrainJob,
    *,
    run: Store,
    table: TableRef,
    epochs: int,
    label: str,
    start: Weights | None = None,
    guarded: bool = False,
) -> Weights:
    """Trains under Ray Train and returns the weights.

    Writes weights, metrics, TensorBoard events and the manifest into `run`. With `guarded`, the
    workers are released if the run is killed while its Ray goes on, as a sweep's trial may be; that
    needs a dashboard. Raises DisclError if training failed more than `train.max_failures` times, or
    once for a reason that another attempt would meet again: a loss that is not finite, or
    checkpoints that are all damaged.
    """
    finished = finished_weights(run)
    if finished is not None:
        return finished
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    log_where_it_goes_on(run, label, epochs)
    controller = start_controller(run.name, job.curriculum, job.levels, job.seed)
    arguments = WorkerArguments(
        job=job,
        run=run,
        table=table,
        start=start,
        controller=controller,
        epochs=epochs,
        lock=token_of(run),
    )
    try:
        with _logged_epochs(run, label, epochs):
            result = _trainer(arguments, guarded=guarded).fit()
    except (ray.train.TrainingFailedError, ray.train.ControllerError) as error:
        raise DisclError(
            f"{label}: training failed: {reason_of(error)}; "
            "the same command goes on from its checkpoint"
        ) from error
    finally:
        ray.kill(controller)
    if result.checkpoint is None:
        raise DisclError(f"{label}: no checkpoint was written")
    _finish(run, result.checkpoint, label=label, table=f"{table.store.name}/{table.name}")
    return load_weights(run)


def _trainer(arguments: WorkerArguments, *, guarded: bool) -> TorchTrainer:
    """Ray Train's trainer of a run, which writes its checkpoints into the run's folder."""
    if guarded:
        pin_ray_address()
    run = arguments.run
    config = arguments.job.train
    gpu = OnGpu(precision=config.precision) if config.on_gpu else None
    kind = WithoutData if guarded else Unguarded
    return kind(
        train_worker,
        torch_config=gpu,
        # by reference: Ray Train's controller would import PyTorch to look into it
        train_loop_config={"arguments": ray.put(arguments)},
        scaling_config=_scaling(config),
        run_config=RunConfig(
            name=RAY_TRAIN,
            storage_path=run.base,
            storage_filesystem=None if run.local is not None else run.filesystem,
            # preempted nodes cost no failure
            failure_config=FailureConfig(
                max_failures=config.max_failures, controller_failure_limit=PLACEMENT_TRIES
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT),
            callbacks=[Final()],
        ),
    )


def _scaling(config: TrainConfig) -> ScalingConfig:
    """How many workers there are, and what each reserves."""
    return ScalingConfig(
        num_workers=1 if config.workers == "auto" else config.workers,
        use_gpu=config.on_gpu,
        resources_per_worker={"GPU": 1} if config.on_gpu else {"CPU": 1},
    )


def _finish(run: Store, checkpoint: Checkpoint, *, label: str, table: str) -> None:
    """Writes what a run leaves, from its last checkpoint."""
    with checkpoint.as_directory() as folder:
        run.write(MODEL, kept_weights(Path(folder)).read_bytes())
        state = json.loads((Path(folder) / STATE).read_text())
    history = state["curriculum"]["history"]
    write_history(run, history)
    write_tensorboard(run, history_rows(history))
    write_manifest(run, label=label, table=table, state=state)


def pin_ray_address() -> None:
    """Pins RAY_ADDRESS to this cluster for Ray Train's guard.

    The guard would connect to the Ray started last on this machine, which may be another one, or
    wait forever for one that has ended.
    """
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")


class WithoutData(TorchTrainer):
    """Without Ray Data: our workers read the images themselves.

    Its actor, and importing it in each worker, would take 2 s of every run.
    """

    LEFT_OUT = ("DatasetsCallback",)
    """Names of Ray Train's own callbacks."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [c for c in callbacks if type(c).__name__ not in self.LEFT_OUT]


class Unguarded(WithoutData):
    """Without the guard that releases a killed run's workers: a Ray that ends with its driver does.

    The guard asks the dashboard whether the run is alive. Without a dashboard that question delays
    the end of every run by 12 s; with another Ray's, the answer is no.
    """

    LEFT_OUT = (*WithoutData.LEFT_OUT, "PlacementGroupCleanerCallback")


@contextmanager
def _logged_epochs(run: Store, label: str, epochs: int) -> Iterator[None]:
    """Logs what the workers write into METRICS while they train: a line for each evaluation."""
    stop = threading.Event()
    shown = set[int]()

    def show() -> None:
        """Logs the evaluations that are not logged yet."""
        try:
            rows = read_history(run) if run.exists(METRICS) else []
        except IntegrityError:  # damaged before this start; the next report writes all of it
            return
        for row in rows:
            line = _line_of(row)
            if line is not None and row["epoch"] not in shown:
                shown.add(row["epoch"])
                log.info("%s · epoch %d/%d %s", label, row["epoch"], epochs, line)

    def follow() -> None:
        """Logs until the run has ended."""
        while not stop.wait(1.0):
            show()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        show()


def _line_of(row: dict[str, Any]) -> str | None:
    """An evaluated epoch in words; None for one that was not evaluated."""
    for key in ("val_macro_f1_ood", "val_top1_overall"):
        if key in row:
            name = key.removeprefix("val_").replace("_", " ")
            images = "real images" if row["lam"] == 1 else f"λ {row['lam']:g}"
            return f"on {images} · loss {row['loss']:.3f} · val {name} {row[key]:.1f} %"
    return None


def train_worker(config: dict[str, Any]) -> None:
    """One Ray Train worker: resumes if there is a checkpoint, and reports from every rank."""
    end_without_destructors()
    arguments: WorkerArguments = ray.get(config["arguments"])
    job = arguments.job
    context = ray.train.get_context()
    torch.set_num_threads(job.train.threads)
    training_device(job.train.on_gpu, job.train.precision)
    world = World(rank=context.get_world_rank(), size=context.get_world_size())
    checkpoint = ray.train.get_checkpoint()
    resume = None if checkpoint is None else newest_readable(checkpoint)[1]
    controller = ActorController(arguments.controller)
    if resume is None and world.rank == 0:
        # an actor that outlived an attempt without a checkpoint starts over, too
        controller.load({"history": {}})

    def report(result: Report) -> None:
        """Hands the loop's report to Ray Train; only rank 0 has a checkpoint."""
        if world.rank:
            ray.train.report({})
            return
        check_token(arguments.run, arguments.lock)
        write_history(arguments.run, result.state.history)
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), result.state)
            ray.train.report(result.metrics, checkpoint=Checkpoint.from_directory(folder))

    loop(
        job,
        open_table(arguments.table),
        controller,
        report,
        start=arguments.start,
        resume=resume,
        world=world,
        epochs=arguments.epochs,
        device=ray.train.torch.get_device() if job.train.on_gpu else "cpu",
    )
