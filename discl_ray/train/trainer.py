"""The Ray Train edge: the loop under TorchTrainer, with checkpoints, the controller's actor and the run's logs.

A run that was killed is started again by the same command and goes on from its last checkpoint that can be read; a finished one
is not run again.
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

import pyarrow.fs as pafs
import ray
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import (
    _CheckpointManagerState,
    _TrainingResultState,
)

from discl_ray.core.ids import sha256
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.storage import Store
from discl_ray.curriculum.actor import ActorController, start_controller
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.models.device import training_device
from discl_ray.process.calls import AGAIN
from discl_ray.train.checkpoint import MODEL, STATE, kept_weights, load_checkpoint, save_checkpoint
from discl_ray.train.failures import Final, reason_of
from discl_ray.train.gpu_workers import OnGpu
from discl_ray.train.images.table import TableRef, open_table
from discl_ray.train.job import history_rows
from discl_ray.train.learners.learner import TrainJob, World
from discl_ray.train.loop import Report, loop, numbers

METRICS = "metrics.jsonl"

RAY_TRAIN = "ray_train"
LIST = f"{RAY_TRAIN}/checkpoint_manager_snapshot.json"

FROM_CHECKPOINT = "it is made again from the run's last checkpoint"

KEPT = 2
"""Checkpoints: the last, and the one before in case the last was cut short."""


@dataclass(frozen=True, kw_only=True)
class WorkerArguments:
    """What each worker is sent."""

    job: TrainJob
    run: Store
    table: TableRef
    start: dict[str, torch.Tensor] | None
    controller: Any
    epochs: int


def train(
    job: TrainJob,
    *,
    run: Store,
    table: TableRef,
    epochs: int,
    label: str,
    start: dict[str, torch.Tensor] | None = None,
    guarded: bool = False,
) -> dict[str, torch.Tensor]:
    """Trains under Ray Train and returns the weights; writes MODEL, METRICS, TensorBoard events and the manifest into `run`.

    `guarded`: should the run be killed while its Ray goes on, as a sweep's trial is, its workers are let go of. Needs a dashboard.
    Raises DisclError if training failed more than `train.max_failures` times, or once for a reason that another attempt would meet
    again: a loss that is not finite, checkpoints that are all damaged.
    """
    left = _left_weights(run)
    if left is None:
        logging.getLogger("ray.train").setLevel(logging.ERROR)
        _say_where_it_goes_on(run, label, epochs)
        if guarded:
            _name_the_cluster()
        controller = start_controller(run.name, job.curriculum, job.levels, job.seed)
        arguments = WorkerArguments(
            job=job, run=run, table=table, start=start, controller=controller, epochs=epochs
        )
        trainer = (TorchTrainer if guarded else _Unguarded)(
            _worker,
            torch_config=OnGpu(precision=job.train.precision) if job.train.on_gpu else None,
            train_loop_config={
                "arguments": ray.put(arguments)
            },  # not looked into, nor imported for, by Ray Train's controller
            scaling_config=ScalingConfig(
                num_workers=1 if job.train.workers == "auto" else job.train.workers,
                use_gpu=job.train.on_gpu,
                resources_per_worker={"GPU": 1} if job.train.on_gpu else {"CPU": 1},
            ),
            run_config=RunConfig(
                name=RAY_TRAIN,
                storage_path=run.base,
                storage_filesystem=None if run.local is not None else run.filesystem,
                # a worker group that cannot be placed is tried again, but not for ever; preempted nodes cost no failure
                failure_config=FailureConfig(
                    max_failures=job.train.max_failures, controller_failure_limit=10
                ),
                checkpoint_config=CheckpointConfig(num_to_keep=KEPT),
                callbacks=[Final()],
            ),
        )
        try:
            with _followed(run, label, epochs):
                result = trainer.fit()
        except (ray.train.TrainingFailedError, ray.train.ControllerError) as error:
            raise DisclError(
                f"{label}: training failed: {reason_of(error)}; the same command goes on from its checkpoint"
            ) from error
        finally:
            ray.kill(controller)
        if result.checkpoint is None:
            raise DisclError(f"{label}: no checkpoint was written")
        with result.checkpoint.as_directory() as folder:
            run.write(MODEL, kept_weights(Path(folder)).read_bytes())
            state = json.loads((Path(folder) / STATE).read_text())
        _write_history(run, state["curriculum"])
        _write_tensorboard(run, history_rows(state["curriculum"]["history"]))
        run.write_json(
            MANIFEST,
            {
                "epochs": state["epoch"],
                "best": state["best"],
                "label": label,
                "table": f"{table.store.name}/{table.name}",
                "sha256": {name: sha256(run.read(name)) for name in (MODEL, METRICS)},
            },
        )
    return load_weights(run) if left is None else left


def _left_weights(run: Store) -> dict[str, torch.Tensor] | None:
    """A finished run's weights; None for one that is not finished, or left something that cannot be read any more."""
    if not run.exists(MANIFEST):
        return None
    try:
        _check_left(run)
        read_history(run)
        return load_weights(run)
    except IntegrityError as error:
        print(f"  {error}", flush=True)
        return None


def _check_left(run: Store) -> None:
    """Raises IntegrityError if what a finished run left is not what its manifest says; one of an earlier version says nothing."""
    with run.reading(MANIFEST, FROM_CHECKPOINT):
        sums = dict(run.read_json(MANIFEST, FROM_CHECKPOINT).get("sha256", {}))
    for name, digest in sums.items():
        with run.reading(name, FROM_CHECKPOINT):
            if sha256(run.read(name)) != digest:
                raise ValueError(f"its bytes differ from {MANIFEST}")


def _say_where_it_goes_on(run: Store, label: str, epochs: int) -> None:
    """Prints from which checkpoint a run that was begun goes on, and which are damaged.

    Raises IntegrityError if all are.
    """
    newest = mend_list(run)
    if newest is None:
        return
    name, state = _newest_readable(Checkpoint(run.path(f"{RAY_TRAIN}/{newest}"), run.filesystem))
    done = state["epoch"]
    where = (
        f"goes on at epoch {done + 1} of {epochs}"
        if done < epochs
        else f"all {epochs} epochs are done, its weights are taken"
    )
    print(f"  {label}: {where} from {name}", flush=True)


def mend_list(run: Store) -> str | None:
    """The newest checkpoint on Ray Train's list, None if there is none.

    Ray Train cannot go on without its list, and goes on with none that names what is gone: a list that is damaged or has been deleted
    is written anew from the checkpoints that lie beside it.
    """
    names = [name for name in run.folders(RAY_TRAIN) if name.startswith("checkpoint_")]
    if not run.exists(LIST):
        names = _finished(run, names)
    else:
        try:
            with run.reading(LIST, "it is written again from the checkpoints beside it"):
                listed = _CheckpointManagerState.model_validate(
                    run.read_json(LIST, "it is written again from the checkpoints beside it")
                )
                known = [result.checkpoint_dir_name for result in listed.checkpoint_results]
                latest = listed.latest_checkpoint_result
                if latest is not None and {*known, latest.checkpoint_dir_name} <= set(names):
                    return latest.checkpoint_dir_name
                raise ValueError("it names checkpoints that are gone")
        except IntegrityError as error:
            print(f"  {error}", flush=True)
    if not names:
        run.delete(LIST)
        return None
    results = [_TrainingResultState(checkpoint_dir_name=name, metrics={}) for name in names]
    state = _CheckpointManagerState(
        checkpoint_results=results,
        checkpoint_report_indices=list(range(len(names))),
        latest_checkpoint_result=results[-1],
        pending_training_results=[],
        pending_validation_specs=[],
        current_report_index=len(names),
        validated_checkpoint_dir_names=[],
        timed_out_validation_checkpoint_dir_names=[],
        failed_validation_checkpoint_dir_names=[],
    )
    run.write_json(LIST, state.model_dump(mode="json"))
    return names[-1]


def _finished(run: Store, names: list[str]) -> list[str]:
    """Checkpoints that no list names; none, and their folders are deleted, if no copy is whole.

    Ray Train lists a checkpoint once it is copied: a run that was killed, or whose disk was full, over its first one has no list, and
    nothing to go on from.
    """
    if not names:
        return []
    try:
        _newest_readable(Checkpoint(run.path(f"{RAY_TRAIN}/{names[-1]}"), run.filesystem))
    except IntegrityError:
        print(f"  {run.path(RAY_TRAIN)}: ended over its first checkpoint; begins anew", flush=True)
        for name in names:
            run.filesystem.delete_dir(run.path(f"{RAY_TRAIN}/{name}"))
        return []
    return names


def _name_the_cluster() -> None:
    """Tells the guard which Ray to ask; else it asks the one last started on this machine, or one that has long ended, for ever."""
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")


class _Unguarded(TorchTrainer):
    """Leaves out the guard that lets go of a killed run's workers, which a Ray that ends with its driver does anyway.

    The guard asks the dashboard whether the run is alive. Where there is none, that question holds up the end of every run by 12 s;
    where there is another Ray's, the answer is no.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [c for c in callbacks if type(c).__name__ != "PlacementGroupCleanerCallback"]


@contextmanager
def _followed(run: Store, label: str, epochs: int) -> Iterator[None]:
    """Prints what the workers write into METRICS while they train: one line a report, on a terminal or in a job's log."""
    stop, seen = threading.Event(), set[int]()

    def show() -> None:
        try:
            rows = read_history(run) if run.exists(METRICS) else []
        except IntegrityError:  # damaged before this start; the next report writes all of it
            return
        for row in rows:
            values = [
                (key, row[key]) for key in ("val_macro_f1_ood", "val_top1_overall") if key in row
            ]
            if values and row["epoch"] not in seen:
                seen.add(row["epoch"])
                name = values[0][0].removeprefix("val_").replace("_", " ")
                seen_on = "real images" if row["lam"] == 1 else f"λ {row['lam']:g}"
                figures = f"loss {row['loss']:.3f} · val {name} {values[0][1]:.1f} %"
                print(
                    f"  {label} · epoch {row['epoch']}/{epochs} on {seen_on} · {figures}",
                    flush=True,
                )

    def follow() -> None:
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


def load_weights(run: Store, remedy: str = FROM_CHECKPOINT) -> dict[str, torch.Tensor]:
    """A finished run's weights; raises IntegrityError with the remedy if they cannot be read."""
    import safetensors
    import safetensors.torch

    with run.reading(MODEL, remedy):
        try:
            return safetensors.torch.load(run.read(MODEL))
        except safetensors.SafetensorError as error:
            raise ValueError(error) from error


def read_history(run: Store) -> list[dict[str, Any]]:
    """A run's metrics by epoch."""
    with run.reading(METRICS, FROM_CHECKPOINT):
        rows = [json.loads(line) for line in run.read(METRICS).decode().splitlines()]
        if not all(row["epoch"] for row in rows) or not rows:
            raise ValueError("no epochs")
        return rows


def _worker(config: dict[str, Any]) -> None:
    """One Ray Train worker: resume if there is a checkpoint, run the loop, report from every rank."""
    arguments: WorkerArguments = ray.get(config["arguments"])
    job, context = arguments.job, ray.train.get_context()
    torch.set_num_threads(job.train.threads)
    training_device(job.train.on_gpu, job.train.precision)
    world = World(rank=context.get_world_rank(), size=context.get_world_size())
    checkpoint = ray.train.get_checkpoint()
    resume = None if checkpoint is None else last_readable(checkpoint)
    controller = ActorController(arguments.controller)
    if resume is None and world.rank == 0:
        controller.load(
            {"history": {}}
        )  # an actor that outlived an attempt without a checkpoint starts over, too

    def report(result: Report) -> None:
        if world.rank:
            ray.train.report({})
            return
        _write_history(arguments.run, result.state["curriculum"])
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


def last_readable(newest: Checkpoint) -> dict[str, Any]:
    """The state of a checkpoint, or of the newest of those before it that can be read; every worker finds the same.

    Raises IntegrityError if all are damaged.
    """
    return _newest_readable(newest)[1]


def _newest_readable(newest: Checkpoint) -> tuple[str, dict[str, Any]]:
    """A checkpoint's name and its state."""
    filesystem, path = newest.filesystem or pafs.LocalFileSystem(), newest.path.rstrip("/")
    parent, name = path.rsplit("/", 1)
    there = filesystem.get_file_info(pafs.FileSelector(parent))
    names = sorted((i.base_name for i in there if i.type == pafs.FileType.Directory), reverse=True)
    problems = []
    for candidate in [name, *(n for n in names if n < name and n.startswith("checkpoint"))]:
        with Checkpoint(f"{parent}/{candidate}", filesystem).as_directory() as folder:
            try:
                state = load_checkpoint(Path(folder))
            except IntegrityError as error:
                problems.append(str(error))
            else:
                for problem in problems:
                    print(f"  warning: {problem}; the one before is taken", flush=True)
                return candidate, state
    raise IntegrityError(
        f"{'; '.join(problems)}; delete {parent} and {AGAIN}, which trains from the start"
    )


def _write_history(run: Store, curriculum: dict[str, Any]) -> None:
    """metrics.jsonl, whole each time: what was measured after the last checkpoint and then lost does not stay in it."""
    lines = [json.dumps(row) for row in history_rows(curriculum["history"])]
    run.write(METRICS, ("\n".join(lines) + "\n").encode())


def _write_tensorboard(run: Store, rows: list[dict[str, Any]]) -> None:
    if run.local is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.local / "tensorboard")) as writer:
        for row in rows:
            for name, value in numbers(row).items():
                writer.add_scalar(name, value, row["epoch"])
