"""A job that is told to end.

One line with the command that goes on, its exit code, within seconds, and nothing left behind.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from discl_ray.process.stopping import descendants, process_stat
from tests.support.runs import ROOT, TINY

LISTENS = """
import signal, sys, time
from discl_ray.process import stopping
stopping.PATIENCE_S = {patience}
stopping.listen()
signal.signal(signal.SIGINT, lambda *_: None)   # as Ray Train does
signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))   # as Ray does
print("ready", flush=True)
{body}
"""
SWALLOWS = """
while True:
    try:
        print("inside", flush=True)
        time.sleep(60)
    except BaseException:
        print("never said")
"""
CHILD = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def start(body: str, patience: float = 1.0, **how) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENS.format(body=body, patience=patience)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **how,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_process_whatever_handlers_libraries_put_in_place(number):
    process = start("time.sleep(60)")
    process.send_signal(number)
    said, complained = process.communicate(timeout=10)
    assert (process.returncode, said) == (128 + number, "")
    assert complained == "stopped\n"


def test_a_process_that_does_not_end_is_ended_and_says_no_more():
    process = start(SWALLOWS)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    said, complained = process.communicate(timeout=10)
    assert (process.returncode, said, complained.count("\n")) == (143, "", 1)
    assert time.monotonic() - began < 4


def test_a_second_signal_ends_it_at_once_and_a_doubled_one_does_not():
    process = start(SWALLOWS, patience=30.0)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode == 130


def test_a_process_whose_reader_has_stopped_reading_ends():
    read, write = os.pipe()
    body = "print('x' * 1_000_000)"
    job = subprocess.Popen(
        [sys.executable, "-c", LISTENS.format(body=body, patience=1.0)],
        stdout=write,
        stderr=write,
        cwd=ROOT,
    )
    os.close(write)
    with open(read, "rb", buffering=0) as reader:
        assert reader.readline() == b"ready\n"  # in one write or two, as PYTHONUNBUFFERED has it
        time.sleep(0.3)  # until the pipe is full
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=10) == 143


PRINTS = """
from discl_ray.process import stopping
stopping.listen()
from discl_ray.cli import finished
finished(lambda: print('what was found'))
"""


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        (
            ">/dev/full",
            1,
            "error: standard output: cannot be written (No space left on device); "
            "then go on with: ",
        ),
        ("| false", 141, "nobody reads this output any more; go on with: "),
        ("2>&1 | false", 141, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_output_that_cannot_be_written_ends_a_job_with_a_line(output, code, said, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "x.py").write_text(PRINTS)
    job = f"{sys.executable} {tmp_path}/jobs/x.py"
    pipe = "sleep 0.2 && " if "|" in output else ""  # until its reader is gone
    command = f"({pipe}exec {job}) {output}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(said)
    interpreter = Path(sys.executable).name
    assert done.stderr.endswith(f"{interpreter} {tmp_path}/jobs/x.py\n" if said else "")
    assert done.stderr.count("\n") == bool(said)


def test_what_it_started_ends_with_it():
    process = start(CHILD + "\n")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    (started,) = {when for number, when in descendants() if number == child}
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    _wait_until_gone({(child, started)})


LATE = """
import atexit, time
atexit.register(lambda: (print("being taken down", flush=True), time.sleep(1)))
from discl_ray.process import stopping
stopping.listen()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_has_ended_has_its_own_exit_code_while_it_is_taken_down(number):
    process = subprocess.Popen(
        [sys.executable, "-c", LATE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"being taken down\n"
    process.send_signal(number)
    assert process.communicate(timeout=10) == (b"", b"")
    assert process.returncode == 0


def test_a_job_that_was_started_deaf_stays_deaf():
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = start("time.sleep(1)", preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0


def _lives(process: int, started: str) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return process_stat(process)[1] == started and state != "Z"
    except OSError:
        return False


def _wait_until_gone(processes: set[tuple[int, str]]) -> None:
    """The operating system takes its time to take down what has been killed."""
    deadline = time.monotonic() + 5
    while any(_lives(*one) for one in processes):
        assert time.monotonic() < deadline
        time.sleep(0.1)


MOMENTS = (
    (signal.SIGINT, "at the imports", lambda said, family: True),
    (signal.SIGTERM, "while Ray starts", lambda said, family: "gcs_server" in family),
    (signal.SIGINT, "while actors load", lambda said, family: "GenerateStage" in family),
    (signal.SIGTERM, "underway", lambda said, family: "images ·" in said),
)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "moment", "reached"), MOMENTS, ids=[m[1] for m in MOMENTS])
def test_make_generate_ends_at_any_moment_with_one_line_that_goes_on(
    number, moment, reached, tmp_path
):
    root = f"run.root={tmp_path}/my runs"
    command = [sys.executable, "jobs/generate.py", root, *TINY, "plan.replicas=12"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as said, err.open("w") as complained:
        job = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=said,
            stderr=complained,
            start_new_session=True,
        )
    try:
        family = _wait_for(job, out, reached)
        began = time.monotonic()
        job.send_signal(number)
        assert job.wait(timeout=30) == 128 + number
        assert time.monotonic() - began < 10
    finally:
        job.kill()
        job.wait()
    lines = err.read_text().splitlines()
    assert len(lines) == 1, lines
    assert shlex.split(lines[0].removeprefix("stopped; go on with: "))[1:] == command[1:]
    _wait_until_gone(family)
    assert not list(tmp_path.rglob("*.tmp"))


def _listens(process: int) -> bool:
    """Whether a process has a handler for SIGTERM, which Python alone has not."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def _wait_for(job: subprocess.Popen, out: Path, reached) -> set[tuple[int, str]]:
    """Until a moment is reached; all processes of the job at that moment."""
    while job.poll() is None and not _listens(
        job.pid
    ):  # a Python that has only begun to start ends as any other does
        time.sleep(0.01)
    while job.poll() is None:
        family = set(descendants(job.pid))
        names = []
        for number, _ in family:
            try:
                names.append(Path(f"/proc/{number}/cmdline").read_text())
            except OSError:
                continue
        if reached(out.read_text(), " ".join(names)):
            return family
        time.sleep(0.05)
    raise AssertionError(out.read_text())
