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
    "train.epochs=4",
    "curriculum.epochs=3",
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
    """The run root of both jobs, of which training was killed on the way, and what it said."""
    root = tmp_path_factory.mktemp("runs")
    finish(job("generate", root))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(job("train", root), cwd=REPOSITORY, **quiet)
    limit = time.monotonic() + 400
    while len(list(root.glob("digits_lt/train-*/ray_train/checkpoint_*"))) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return root, finish(job("train", root))


@pytest.mark.timeout(900)
def test_train_ends_with_a_table_curves_logs_and_a_ledger(trained: tuple[Path, str]) -> None:
    root, said = trained
    assert "shared start: cross-entropy on the real images alone" in said
    assert "CE: real images alone, the baseline; " in said
    assert "difference" in said
    assert "no evidence for photographs" in said
    runs = [p for p in root.glob("digits_lt/train-*") if (p / "metrics.parquet").is_file()]
    assert len(runs) == 2  # CE and the curriculum; the start run is never tested
    for path in runs:
        rows = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
        assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
        assert len((path / "test_ledger.jsonl").read_text().splitlines()) == 1
        assert list((path / "tensorboard").iterdir())
    assert list(root.glob("digits_lt/train-*/curves.png"))


@pytest.mark.timeout(900)
def test_submitted_jobs_make_the_bytes_of_local_ones_that_were_killed(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
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
