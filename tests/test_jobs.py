"""The two jobs as a user runs them: make train, killed and resumed; ray job submit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TINY = [
    "plan.replicas=1",
    "plan.num_steps=4",
    "plan.lams=[0,0.5]",
    "plan.shard_steps=20",
    "hard.probe_sources=1",
    "data.head=8",
    "data.tail=2",
    "hard.below=4",
    "train.width=4",
    "train.epochs=6",
    "curriculum.epochs=4",
    "train.start_steps=4",
    "train.eval_every=1",
    "train.batch=16",
]
REPOSITORY = Path(__file__).parent.parent


def job(name: str, root: Path, *more: str) -> list[str]:
    return [sys.executable, f"jobs/{name}.py", f"run.root={root}", *TINY, *more]


def finish(command: list[str]) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def weights(root: Path) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in root.glob("digits_lt/train-*/model.safetensors")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("runs")
    finish(job("generate", root))
    return root, finish(job("train", root))


@pytest.mark.timeout(900)
def test_train_ends_with_a_table_curves_logs_and_a_ledger(trained: tuple[Path, str]) -> None:
    root, said = trained
    assert "difference" in said
    assert "no evidence for photographs" in said
    runs = [p for p in root.glob("digits_lt/train-*") if (p / "metrics.parquet").is_file()]
    assert len(runs) == 2  # CE and the curriculum; the start run is never tested
    for path in runs:
        assert [
            json.loads(line)["epoch"] for line in (path / "metrics.jsonl").read_text().splitlines()
        ] == [1, 2, 3, 4, 5, 6]
        assert len((path / "test_ledger.jsonl").read_text().splitlines()) == 1
        assert list((path / "tensorboard").iterdir())
    assert list(root.glob("digits_lt/train-*/curves.png"))


@pytest.mark.timeout(900)
def test_a_training_killed_on_the_way_ends_with_the_same_weights(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    root, _ = trained
    (tmp_path / "digits_lt").mkdir()
    for made in (*root.glob("digits_lt/generate-*"), *root.glob("digits_lt/samples-*")):
        (tmp_path / "digits_lt" / made.name).symlink_to(made)
    process = subprocess.Popen(
        job("train", tmp_path), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    limit = time.monotonic() + 400
    while (
        len(list(tmp_path.glob("digits_lt/train-*/ray_train/checkpoint_*"))) < 3
        and time.monotonic() < limit
    ):
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finish(job("train", tmp_path))
    assert weights(tmp_path) == weights(root)


@pytest.mark.timeout(900)
def test_a_submitted_job_makes_the_same_bytes(trained: tuple[Path, str], tmp_path: Path) -> None:
    import shutil
    import socket
    import tempfile

    import pyarrow.dataset as pads

    def free_port() -> int:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return s.getsockname()[1]

    session = tempfile.mkdtemp(prefix="dr")  # a socket's path may not be longer than 107 bytes
    binaries, dashboard, gcs = Path(sys.executable).parent, free_port(), free_port()
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    command = [
        binaries / "ray",
        "start",
        "--head",
        "--block",
        "--node-ip-address=127.0.0.1",
        f"--port={gcs}",
        "--num-cpus=4",
        f"--dashboard-port={dashboard}",
        "--dashboard-host=127.0.0.1",
        f"--temp-dir={session}",
        f"--dashboard-agent-listen-port={free_port()}",  # the tests' own Ray may hold the usual one
    ]
    head = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def submit(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        submission = [
            binaries / "ray",
            "job",
            "submit",
            "--address",
            f"http://127.0.0.1:{dashboard}",
            "--working-dir",
            str(REPOSITORY),
            "--",
            sys.executable,
            f"jobs/{name}.py",
            *arguments,
        ]
        # The dashboard listens before its job agent does; until then a submission is refused, not
        # queued.
        limit = time.monotonic() + 240
        while True:
            done = subprocess.run(
                submission, env=environment, capture_output=True, text=True, timeout=500
            )
            starting = (
                "No available agent" in done.stderr or "Failed to connect to Ray" in done.stderr
            )
            if not starting or time.monotonic() > limit:
                return done
            time.sleep(2)

    try:
        for name in ("generate", "train"):
            done = submit(name, f"run.root={tmp_path / 'shared'}", *TINY)
            assert "succeeded" in done.stdout, done.stdout + done.stderr
        refused = submit("generate", "run.root=runs", *TINY)
        assert "needs an absolute path" in refused.stdout + refused.stderr
    finally:
        head.terminate()
        head.wait(timeout=60)
        shutil.rmtree(session, ignore_errors=True)

    def images(root: Path) -> dict[str, bytes]:
        (folder,) = root.glob("digits_lt/generate-*/spectrum")
        table = pads.dataset(folder, partitioning="hive").to_table(columns=["gid", "image"])
        return {r["gid"]: r["image"]["bytes"] for r in table.to_pylist()}

    assert images(tmp_path / "shared") == images(trained[0])
    assert weights(tmp_path / "shared") == weights(trained[0])
