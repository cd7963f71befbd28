"""Training under Ray Train, killed at random moments.

It ends with the bytes of a run that nobody disturbed.

DISCL_KILLS is how often it is killed in all, over workers, the controller's actor and the driver.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
import torch

from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.storage import Store
from discl_ray.curriculum.actor import actor_name
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.train import trainer
from discl_ray.train.checkpoint_list import newest_readable
from discl_ray.train.images.table import TableRef
from discl_ray.train.learners.learner import TrainJob
from discl_ray.train.run_files import METRICS, MODEL, read_history
from tests.support.runs import ROOT
from tests.train.tiny import Moment, make_job, make_table, mortal_worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KILLS = int(os.environ.get("DISCL_KILLS", "20"))
BY_DRIVER = KILLS // 5
"""With few kills none: tests/test_jobs.py kills one, too."""
BY_ACTOR = max(1, 2 * KILLS // 5)
BY_WORKER = max(2, KILLS - BY_DRIVER - BY_ACTOR)

EPOCHS = 12
BATCHES = 6
"""Of an epoch: one explored, five of the stage."""


def job(workers: int = 1, **train: object) -> TrainJob:
    return make_job(workers=workers, max_failures=1000, keep="best", **train)


def train(ref: TableRef, run: Path, training: TrainJob) -> dict[str, torch.Tensor]:
    return trainer.train(training, run=Store.at(run), table=ref, epochs=EPOCHS, label="tiny")


def left(run: Path) -> tuple[bytes, bytes]:
    """Weights and metrics, λ among them."""
    return (run / MODEL).read_bytes(), (run / METRICS).read_bytes()


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> TableRef:
    return make_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def undisturbed(
    ray_local: None, ref: TableRef, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Runs of one and of two workers."""
    runs = {workers: tmp_path_factory.mktemp("undisturbed") for workers in (1, 2)}
    for workers, run in runs.items():
        train(ref, run, job(workers))
    return runs


def test_the_runs_have_something_to_lose(undisturbed: dict[int, Path]) -> None:
    history = read_history(Store.at(undisturbed[1]))
    assert [row["epoch"] for row in history] == list(range(1, EPOCHS + 1))
    assert len({row["lam"] for row in history}) > 1  # the adaptive curriculum went up and down
    assert left(undisturbed[1]) != left(
        undisturbed[2]
    )  # in the last bits: what follows is not trivial


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_workers(
    workers: int, undisturbed, ref: TableRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(workers)
    moments: set[Moment] = set()
    while len(moments) < BY_WORKER // 2 + BY_WORKER % 2 * (workers - 1):
        where = rng.choice([*range(BATCHES), "saved"])
        moments.add(
            (rng.randint(1, EPOCHS), where, 0 if where == "saved" else rng.randrange(workers))
        )
    monkeypatch.setattr(trainer, "train_worker", mortal_worker(tuple(moments), str(tmp_path)))
    train(ref, tmp_path / "run", job(workers))
    assert {path.name for path in tmp_path.glob("died-*")} == {
        f"died-{e}-{where}-{rank}" for e, where, rank in moments
    }
    assert left(tmp_path / "run") == left(undisturbed[workers])


def test_killed_controllers(
    undisturbed, ref: TableRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, died, over = random.Random(0), [0], threading.Event()

    def kill() -> None:
        while died[0] < BY_ACTOR and not over.wait(rng.uniform(0.0, 1.0)):
            try:
                actor = ray.get_actor(actor_name("run"))
                if ray.get(actor.state.remote(), timeout=20)[
                    "history"
                ]:  # it is up and has something to forget
                    ray.kill(actor, no_restart=False)
                    died[0] += 1
                    (tmp_path / f"kill-{died[0]}").touch()
            except (ValueError, ray.exceptions.RayError):
                continue

    # each of the last epochs waits for one kill more, so that the run is long enough for all of
    # them
    gates = {
        EPOCHS - BY_ACTOR + number: str(tmp_path / f"kill-{number}")
        for number in range(1, BY_ACTOR + 1)
    }
    pause = 1.6 * BY_ACTOR / (EPOCHS * BATCHES)
    monkeypatch.setattr(trainer, "train_worker", mortal_worker((), str(tmp_path), pause, gates))
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    train(ref, tmp_path / "run", job())
    over.set()
    killer.join()
    assert died[0] == BY_ACTOR
    assert left(tmp_path / "run") == left(undisturbed[1])


DRIVER = """
import sys
from pathlib import Path
import tests.conftest
import ray
from discl_ray.train import trainer
from tests.train.test_killed import job, train
from tests.train.tiny import make_table, mortal_worker
{cluster}
ref = make_table(Path(sys.argv[1]) / "table")
trainer.train_worker = mortal_worker((), sys.argv[1], float(sys.argv[2]))
train(ref, Path(sys.argv[1]) / "run", job(workers=int(sys.argv[3])))
# before the cluster goes, if it is one of ours: a driver that loses its node exits with 1
ray.shutdown()
"""

LOCAL = """
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
         object_store_memory=100 * 2**20)
"""

CLUSTER = """
from ray.cluster_utils import Cluster
head = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args=head)
cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
ray.init(address=cluster.address, log_to_driver=False)
"""


def driver(cluster: str, root: Path, *, pause: float, workers: int) -> list[str]:
    return [
        sys.executable,
        "-c",
        DRIVER.format(cluster=cluster),
        str(root),
        str(pause),
        str(workers),
    ]


@pytest.mark.skipif(not BY_DRIVER, reason="DISCL_KILLS is less than 5")
def test_killed_drivers(undisturbed, tmp_path: Path) -> None:
    rng = random.Random(0)

    def checkpoints() -> set[str]:
        return {p.name for p in (tmp_path / "run" / "ray_train").glob("checkpoint_*")}

    for _ in range(BY_DRIVER):
        command, before = driver(LOCAL, tmp_path, pause=0.15, workers=1), checkpoints()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        limit = time.monotonic() + 300
        while not checkpoints() - before:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < limit
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 1.0))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "run" / MANIFEST).exists()
    finish(driver(LOCAL, tmp_path, pause=0.0, workers=1))
    assert left(tmp_path / "run") == left(undisturbed[1])


def test_two_nodes_are_two_workers(undisturbed, tmp_path: Path) -> None:
    finish(driver(CLUSTER, tmp_path, pause=0.0, workers=2))
    ranks, nodes = zip(*(path.name.split("-")[1:] for path in tmp_path.glob("node-*")), strict=True)
    assert sorted(ranks) == ["0", "1"]
    assert len(set(nodes)) == 2
    assert left(tmp_path / "run") == left(undisturbed[2])


def finish(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


# -- what is on disk is damaged, or the numbers are


@pytest.fixture
def interrupted(undisturbed: dict[int, Path], tmp_path: Path) -> list[Path]:
    """The checkpoints, oldest first, of a run that is not closed yet, in `tmp_path / "run"`."""
    run = shutil.copytree(undisturbed[1], tmp_path / "run")
    for name in (MANIFEST, MODEL, METRICS):
        (run / name).unlink()
    return sorted((run / "ray_train").glob("checkpoint_2*"))


def cut_short(checkpoint: Path) -> None:
    with (checkpoint / MODEL).open("r+b") as file:
        file.truncate(1000)


def test_damaged_checkpoints(
    undisturbed, interrupted: list[Path], ref: TableRef, tmp_path: Path, caplog
) -> None:
    newest = ray.train.Checkpoint(str(interrupted[-1]))
    assert len(interrupted) == trainer.KEPT
    assert newest_readable(newest)[1].epoch == EPOCHS
    cut_short(interrupted[-1])
    assert newest_readable(newest)[1].epoch == EPOCHS - 1
    assert "the one before is taken" in caplog.text
    train(ref, tmp_path / "run", job())
    assert left(tmp_path / "run") == left(undisturbed[1])


def test_checkpoints_all_damaged(interrupted: list[Path], ref: TableRef, tmp_path: Path) -> None:
    for checkpoint in interrupted:
        cut_short(checkpoint)
    with pytest.raises(IntegrityError, match=r"delete .*ray_train and run the command again"):
        newest_readable(ray.train.Checkpoint(str(interrupted[-1])))
    with pytest.raises(
        DisclError, match=r"checkpoint is damaged.*delete .*ray_train and run the command again"
    ) as caught:
        train(ref, tmp_path / "run", job())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loss_that_is_not_finite_is_one_sentence_and_not_tried_again(
    workers: int,
    ray_local: None,
    ref: TableRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd,
) -> None:
    monkeypatch.setattr(trainer, "train_worker", counted(str(tmp_path)))
    with pytest.raises(
        DisclError,
        match=r"^tiny: training failed: epoch \d+, step \d+ of \d+, .*the loss is (nan|inf)",
    ) as caught:
        train(ref, tmp_path / "run", job(workers, learning_rate=1e30))
    assert "\n" not in str(caught.value)
    assert "train-" in str(caught.value)  # it names images
    assert len(list(tmp_path.glob("attempt-*"))) == workers
    assert "Traceback" not in "".join(capfd.readouterr())


def counted(folder: str) -> Callable[[dict[str, Any]], None]:
    """A worker that leaves a file for every attempt."""

    def worker(config: dict[str, Any]) -> None:
        from discl_ray.train import trainer

        with open(f"{folder}/attempt-{time.time_ns()}-{os.getpid()}", "w"):
            trainer.train_worker(config)

    return worker
