import os
import signal
import subprocess
import sys
import time

import pytest

from discl_ray.cluster.session import check_versions
from discl_ray.core import run_directory as run
from discl_ray.core.run_directory import check_root, in_submitted_job, locked, run_store
from discl_ray.core.storage import Store
from discl_ray.errors import SetupError

HOLD = (
    "import sys\n"
    "from discl_ray.core.storage import Store\n"
    "from discl_ray.core.run_directory import locked\n"
    "with locked(Store.at(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.timeout(60)
def test_a_run_that_another_process_holds_is_refused_with_its_pid(holder, tmp_path):
    with (
        pytest.raises(SetupError, match=rf"in use by process {holder.pid} on "),
        locked(Store.at(tmp_path)),
    ):
        pass
    assert "pid" in Store.at(tmp_path).read_json(
        ".holder"
    )  # the refused one leaves the holder's note


@pytest.mark.timeout(60)
def test_a_killed_holder_lets_go(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(Store.at(tmp_path)):
        assert Store.at(tmp_path).read_json(".holder")["pid"] == os.getpid()


def test_a_run_can_be_held_again_after_it_was_let_go(tmp_path):
    for _ in range(2):
        with locked(Store.at(tmp_path)):
            assert (tmp_path / ".holder").exists()
        assert not (tmp_path / ".holder").exists()


def test_other_runs_are_not_held(tmp_path):
    with locked(Store.at(tmp_path / "a")), locked(Store.at(tmp_path / "b")):
        pass


def test_a_root_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(SetupError, match="cannot be written"),
        locked(run_store(str(tmp_path / "file"), "n", "d")),
    ):
        pass


@pytest.mark.parametrize("root", ["{tmp}/file", "{tmp}/file/x", "/proc/nowhere", "nothing://here"])
def test_a_root_that_cannot_be_written_is_named_with_what_to_do(root, tmp_path):
    (tmp_path / "file").write_text("x")
    root = root.format(tmp=tmp_path)
    with pytest.raises(SetupError, match=r"cannot be written \(.*set run.root") as caught:
        check_root(root)
    assert str(caught.value).startswith(f"run.root = '{root}': ")
    check_root(str(tmp_path / "new" / "runs"))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("root", ["s4://runs/r1", "s3://", "dropbox://runs"])
def test_a_uri_that_cannot_be_opened_is_one_line(root):
    with pytest.raises(
        SetupError, match=r"cannot be written \(.*set run.root to .* a URI"
    ) as caught:
        run_store(root, "name", "")
    assert str(caught.value).startswith(f"run.root = '{root}': ")
    assert "\n" not in str(caught.value)


def test_a_root_that_does_not_answer_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "ANSWER_S", 0.2)
    monkeypatch.setattr(Store, "probe", lambda _: time.sleep(2))
    with pytest.raises(SetupError, match="does not answer within"):
        check_root(str(tmp_path))


def test_a_relative_root_is_refused_in_a_submitted_job_only(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert not in_submitted_job()
    assert run_store("runs", "n", "d").base == str(tmp_path / "runs" / "n" / "d")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(SetupError, match=r"run\.root = 'runs'"):
        run_store("runs", "n", "d")
    assert run_store(str(tmp_path), "n", "d").base == f"{tmp_path}/n/d"
    assert run_store(tmp_path.as_uri(), "n", "d").base == f"{tmp_path}/n/d"


def versions(torch, torchvision):
    return {"torch": torch, "torchvision": torchvision}.__getitem__


@pytest.mark.parametrize(
    ("torch", "vision"),
    [("2.11.0", "0.26.0"), ("2.12.1+cpu", "0.27.0+cpu"), ("2.11.0+cu130", "0.26.1+cu130")],
)
def test_a_matching_pair_is_accepted(torch, vision):
    check_versions(versions(torch, vision))


@pytest.mark.parametrize(
    ("torch", "vision", "fix"),
    [
        ("2.11.0", "0.25.0", "'torchvision==0.26.*'"),
        ("2.12.0+cpu", "0.26.0+cpu", "'torchvision==0.27.*'"),
        ("2.11.0+cu130", "0.26.0+cpu", "'torchvision==0.26.*'"),
        ("2.11.0+cpu", "0.26.0", "'torch==2.11.*'"),
    ],
)
def test_a_wrong_pair_is_refused_with_the_command_that_mends_it(torch, vision, fix):
    with pytest.raises(SetupError, match="are not a pair") as caught:
        check_versions(versions(torch, vision))
    assert fix in str(caught.value)
    assert torch in str(caught.value)
    assert vision in str(caught.value)


def test_the_installed_pair_fits():
    check_versions()
