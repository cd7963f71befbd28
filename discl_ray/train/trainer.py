"""The Ray Train edge: the loop under TorchTrainer, with checkpoints, the controller's actor and the run's logs.

A checkpoint is model.safetensors, optimizer.pt (tensors and numbers) and state.json (epoch, curriculum). A run that was killed is
started again by the same command and goes on from its last checkpoint; a finished one is not run again.
"""

from __future__ import annotations

import json
import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from safetensors.torch import load_file, save_file

from discl_ray.core.storage import Store
from discl_ray.curriculum.actor import ActorController, start_controller
from discl_ray.errors import DisclError
from discl_ray.run import MANIFEST
from discl_ray.train.job import history_rows
from discl_ray.train.loop import Report, TrainJob, World, loop
from discl_ray.train.table import ImageTable, local_copy

MODEL = "model.safetensors"
METRICS = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class WorkerArguments:
    """What each worker is sent."""

    job: TrainJob
    run: Store
    table: str
    start: dict[str, torch.Tensor] | None
    controller: Any
    epochs: int
    label: str


def train(
    job: TrainJob,
    *,
    run: Store,
    table: str,
    levels: tuple[int, ...],
    epochs: int,
    label: str,
    start: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Trains under Ray Train and returns the weights; writes MODEL, METRICS, TensorBoard events and the manifest into `run`.

    Raises DisclError if training failed more than `train.max_failures` times.
    """
    if not run.exists(MANIFEST):
        directory = run.base.rsplit("/", 1)[-1]
        logging.getLogger("ray.train").setLevel(logging.ERROR)
        controller = start_controller(directory, job.curriculum.strategy, levels, job.curriculum.epochs)
        arguments = WorkerArguments(
            job=job, run=run, table=table, start=start, controller=controller, epochs=epochs, label=label
        )
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"arguments": arguments},
            scaling_config=ScalingConfig(
                num_workers=job.train.workers,
                use_gpu=job.train.use_gpu,
                resources_per_worker={"GPU": 1} if job.train.use_gpu else {"CPU": 1},
            ),
            run_config=RunConfig(
                name="ray_train",
                storage_path=run.base,
                storage_filesystem=None if run.local is not None else run.filesystem,
                failure_config=FailureConfig(max_failures=job.train.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        try:
            with _followed(run, label, epochs):
                result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise DisclError(f"{label}: training failed: {error}; run the same command to go on from its checkpoint") from error
        finally:
            ray.kill(controller)
        if result.checkpoint is None:
            raise DisclError(f"{label}: no checkpoint was written")
        with result.checkpoint.as_directory() as folder:
            run.write(MODEL, (Path(folder) / MODEL).read_bytes())
            state = json.loads((Path(folder) / "state.json").read_text())
        _write_history(run, state["curriculum"])
        _write_tensorboard(run, state["curriculum"])
        run.write_json(MANIFEST, {"epochs": state["epoch"], "label": label, "table": table})
    return load_weights(run)


@contextmanager
def _followed(run: Store, label: str, epochs: int) -> Iterator[None]:
    """Prints what the workers write into METRICS while they train: one line a report, on a terminal or in a job's log."""
    stop, seen = threading.Event(), set[int]()

    def show() -> None:
        for row in read_history(run) if run.exists(METRICS) else []:
            if "val_top1_overall" in row and row["epoch"] not in seen:
                seen.add(row["epoch"])
                level = f"λ {row['lam']:g} · loss {row['loss']:.3f} · val top-1 {row['val_top1_overall']:.1f} %"
                print(f"  {label} · epoch {row['epoch']}/{epochs} · {level}", flush=True)

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


def load_weights(run: Store) -> dict[str, torch.Tensor]:
    """A finished run's weights."""
    import safetensors.torch

    return safetensors.torch.load(run.read(MODEL))


def read_history(run: Store) -> list[dict[str, Any]]:
    """A run's metrics by epoch."""
    return [json.loads(line) for line in run.read(METRICS).decode().splitlines()]


def _worker(config: dict[str, Any]) -> None:
    """One Ray Train worker: resume if there is a checkpoint, run the loop, report from every rank."""
    arguments: WorkerArguments = config["arguments"]
    job, context = arguments.job, ray.train.get_context()
    torch.set_num_threads(job.train.threads)
    world = World(rank=context.get_world_rank(), size=context.get_world_size())
    checkpoint = ray.train.get_checkpoint()
    resume = None
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            resume = load_checkpoint(Path(folder))
    controller = ActorController(arguments.controller)
    if resume is None and world.rank == 0:
        controller.load({"history": {}})  # an actor that outlived an attempt without a checkpoint starts over, too

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
        ImageTable.open(local_copy(arguments.run, arguments.table)),
        controller,
        report,
        start=arguments.start,
        resume=resume,
        world=world,
        epochs=arguments.epochs,
    )


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes a state of the loop; nothing in it is pickled but tensors and numbers."""
    save_file({k: v.contiguous() for k, v in state["model"].items()}, folder / MODEL)
    torch.save(state["optimizer"], folder / "optimizer.pt")
    (folder / "state.json").write_text(json.dumps({"epoch": state["epoch"], "curriculum": state["curriculum"]}))


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote."""
    optimizer = torch.load(folder / "optimizer.pt", weights_only=True)
    return {"model": load_file(folder / MODEL), "optimizer": optimizer, **json.loads((folder / "state.json").read_text())}


def _write_history(run: Store, curriculum: dict[str, Any]) -> None:
    """metrics.jsonl, whole each time: what was measured after the last checkpoint and then lost does not stay in it."""
    lines = [json.dumps(row) for row in history_rows(curriculum["history"])]
    run.write(METRICS, ("\n".join(lines) + "\n").encode())


def _write_tensorboard(run: Store, curriculum: dict[str, Any]) -> None:
    if run.local is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.local / "tensorboard")) as writer:
        for row in history_rows(curriculum["history"]):
            for name, value in row.items():
                writer.add_scalar(name, value, row["epoch"])
