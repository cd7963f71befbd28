import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from discl_ray.core.lease import LOCK, Lease, Terms, check_token, leased, lock_record, token_of
from discl_ray.core.run_directory import holder, locked
from discl_ray.core.storage import Store
from discl_ray.errors import SetupError, StorageError
from tests.support.s3_server import environment, proxy_before

QUICK = Terms(lease_s=0.6, renew_s=0.1, look_s=0.02)
RACES = pytest.mark.parametrize("races", [20, pytest.param(200, marks=pytest.mark.slow)])

HOLD = """
import sys, time
from discl_ray.core.lease import Terms, leased
from discl_ray.core.storage import Store
with leased(Store.at(sys.argv[1]), terms=Terms(lease_s=float(sys.argv[2]), renew_s=0.1)):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(s3_root):
    return Store.at(s3_root).within("generate-1")


@pytest.fixture
def other(s3_root, run):
    """A process that holds the run's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, f"{s3_root}/generate-1", "20"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def foreign(run):
    """The lock's record, as if its holder were on another machine."""
    record = run.read_json(LOCK) | {"host": "elsewhere"}
    run.write(LOCK, json.dumps(record).encode())


def test_a_lock_is_held_let_go_and_held_again(run):
    for _ in range(2):
        with locked(run):
            assert holder(run).startswith(f"process {os.getpid()} on ")
            run.write("a", b"1")
        assert holder(run) == ""
        assert not lock_record(run)
    assert run.list() == ["a"], "the lock is hidden"


@pytest.mark.timeout(60)
def test_a_lock_that_is_renewed_is_not_taken(run, other):
    with (
        pytest.raises(SetupError, match=rf"^s3://.*: in use by process {other.pid} on .* since"),
        leased(run, terms=QUICK),
    ):
        pass
    assert str(other.pid) in holder(run)


@pytest.mark.timeout(60)
def test_a_killed_holder_of_this_machine_is_followed_at_once(run, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    begun = time.monotonic()
    with leased(run):  # with the usual lease of a minute
        assert time.monotonic() - begun < 10
        run.write("a", b"1")


@pytest.mark.timeout(60)
def test_a_dead_holder_of_another_machine_is_followed_after_its_lease(run, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    foreign(run)
    begun = time.monotonic()
    with leased(run, terms=QUICK):
        assert QUICK.lease_s <= time.monotonic() - begun < 10


@pytest.mark.timeout(60)
def test_who_is_told_to_wait_waits(run):
    order = []

    def second():
        with leased(run, wait=True, terms=QUICK):
            order.append("second")

    with leased(run, terms=QUICK):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(1.0)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@RACES
def test_of_two_that_want_a_free_lock_one_gets_it(s3_root, races):
    """Also of two that take over the lock of a dead process."""
    for number in range(races):
        run = Store.at(s3_root).within(f"race-{number}")
        if number % 2:
            record = Lease(run, run.objects)._record(free=True)
            run.write(LOCK, record)
        leases = [Lease(run, run.objects, QUICK) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            got = list(pool.map(lambda one: one.try_once(), leases))
        assert sum(got) == 1
        assert run.read_json(LOCK)["token"] == leases[got.index(True)].token


@pytest.mark.timeout(60)
def test_who_has_lost_its_lock_is_stopped_and_writes_nothing_more(run):
    def work():
        with leased(run, terms=QUICK):
            token = token_of(run)
            check_token(run, token)
            taken = {"token": "other", "pid": 1, "host": "elsewhere", "since": "now"}
            run.objects.put(run.path(LOCK), json.dumps(taken).encode())
            with pytest.raises(StorageError, match="taken over by process 1 on elsewhere"):
                check_token(run, token)
            try:
                time.sleep(30)  # interrupted
            except StorageError:
                run.write("late", b"1")

    with pytest.raises(StorageError, match="lock was taken over by process 1 on elsewhere") as told:
        work()
    assert "\n" not in str(told.value)
    assert run.list() == []
    assert run.read_json(LOCK)["token"] == "other"


@pytest.mark.timeout(60)
def test_a_lock_that_cannot_be_renewed_is_lost(s3_endpoint, s3_root, monkeypatch):
    with proxy_before(s3_endpoint) as proxy:
        for name, value in environment(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        run = Store.at(s3_root)
        brief = Terms(lease_s=0.6, renew_s=0.1, request_s=0.3)

        def work():
            with leased(run, terms=brief):
                proxy.fault = lambda *_: "SlowDown"
                time.sleep(30)

        with pytest.raises(StorageError, match="this process's lock could not be renewed in time"):
            work()


@pytest.mark.timeout(60)
def test_a_lock_survives_a_server_that_fails_one_request_in_three(
    s3_endpoint, s3_root, monkeypatch
):
    with proxy_before(s3_endpoint) as proxy:
        for name, value in environment(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        proxy.fault = lambda number, *_: ("", "SlowDown", "", "", "lost", "")[number % 6]
        run = Store.at(s3_root)
        with leased(run, terms=Terms(lease_s=5, renew_s=0.1)):
            time.sleep(2)
            run.write("a", b"1")
        assert proxy.failed >= 4


def test_a_file_system_without_conditional_writes_has_no_lock(tmp_path):
    run = Store.at(f"memory://{tmp_path.name}")
    with locked(run):
        assert token_of(run) == ""
        check_token(run, "")
