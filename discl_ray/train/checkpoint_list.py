"""Ray Train's list of a run's checkpoints, and the newest checkpoint that can be read.

Ray Train cannot go on without its list, and goes on with none that names a checkpoint that is gone.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow.fs as pafs
from ray.train import Checkpoint
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import (
    _CheckpointManagerState,
    _TrainingResultState,
)

from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.process.calls import AGAIN
from discl_ray.train.checkpoint import LoopState, load_checkpoint

log = logging.getLogger(__name__)

RAY_TRAIN = "ray_train"
"""Ray Train's folder in a run's."""

LIST = f"{RAY_TRAIN}/checkpoint_manager_snapshot.json"

REMEDY = "it is written again from the checkpoints beside it"


def log_where_it_goes_on(run: Store, label: str, epochs: int) -> None:
    """Logs the checkpoint from which a run that was begun goes on, and those that are damaged.

    Raises IntegrityError if all are.
    """
    newest = mend_list(run)
    if newest is None:
        return
    name, state = newest_readable(_checkpoint(run, newest))
    where = f"all {epochs} epochs are done, its weights are taken"
    if state.epoch < epochs:
        where = f"goes on at epoch {state.epoch + 1} of {epochs}"
    log.info("%s: %s from %s", label, where, name)


def mend_list(run: Store) -> str | None:
    """The newest checkpoint on Ray Train's list, None if there is none.

    A list that is damaged or has been deleted is written again from the checkpoints beside it.
    """
    names = [name for name in run.folders(RAY_TRAIN) if name.startswith("checkpoint_")]
    if not run.exists(LIST):
        names = _completed(run, names)
    else:
        try:
            return _newest_on_list(run, names)
        except IntegrityError as error:
            log.info("%s", error)
    if not names:
        run.delete(LIST)
        return None
    _write_list(run, names)
    return names[-1]


def _newest_on_list(run: Store, names: list[str]) -> str:
    """The latest checkpoint of the list; `names` are those that are there.

    Raises IntegrityError if the list is damaged or names another one.
    """
    with run.reading(LIST, REMEDY):
        state = _CheckpointManagerState.model_validate(run.read_json(LIST, REMEDY))
        listed = {result.checkpoint_dir_name for result in state.checkpoint_results}
        latest = state.latest_checkpoint_result
        if latest is not None and listed | {latest.checkpoint_dir_name} <= set(names):
            return latest.checkpoint_dir_name
        raise ValueError("it names checkpoints that are gone")


def _write_list(run: Store, names: list[str]) -> None:
    """Writes Ray Train's list of some checkpoints, oldest first."""
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


def _completed(run: Store, names: list[str]) -> list[str]:
    """Checkpoints of a run without a list; none, and their folders are deleted, if all are damaged.

    Ray Train lists a checkpoint once it is copied: a run that was killed, or whose disk was full,
    during its first one has no list, and nothing to go on from.
    """
    if not names:
        return []
    try:
        newest_readable(_checkpoint(run, names[-1]))
    except IntegrityError:
        log.info("%s: ended over its first checkpoint; begins anew", run.location(RAY_TRAIN))
        for name in names:
            run.filesystem.delete_dir(run.path(f"{RAY_TRAIN}/{name}"))
        return []
    return names


def _checkpoint(run: Store, name: str) -> Checkpoint:
    """One of a run's checkpoints, wherever the run is stored."""
    return Checkpoint(run.path(f"{RAY_TRAIN}/{name}"), run.filesystem)


def newest_readable(newest: Checkpoint) -> tuple[str, LoopState]:
    """(name, state) of a checkpoint, or of the newest of those before it that can be read.

    Every worker finds the same one. Raises IntegrityError if all are damaged.
    """
    filesystem = newest.filesystem or pafs.LocalFileSystem()
    parent, name = newest.path.rstrip("/").rsplit("/", 1)
    problems: list[str] = []
    for candidate in [name, *_older(filesystem, parent, name)]:
        with Checkpoint(f"{parent}/{candidate}", filesystem).as_directory() as folder:
            try:
                state = load_checkpoint(Path(folder))
            except IntegrityError as error:
                problems.append(str(error))
                continue
        for problem in problems:
            log.warning("%s; the one before is taken", problem)
        return candidate, state
    raise IntegrityError(
        f"{'; '.join(problems)}; delete {parent} and {AGAIN}, which trains from the start"
    )


def _older(filesystem: pafs.FileSystem, parent: str, name: str) -> list[str]:
    """Checkpoints before one of a folder, newest first; their names sort by time."""
    found = filesystem.get_file_info(pafs.FileSelector(parent))
    names = [info.base_name for info in found if info.type == pafs.FileType.Directory]
    older = [other for other in names if other < name and other.startswith("checkpoint")]
    return sorted(older, reverse=True)
