import signal
import threading
from contextlib import suppress

import pytest

from discl_ray.cluster.watchdog import Snapshot, StallDetector, SystemClock, Watchdog
from discl_ray.errors import ModelError, SetupError

STALLED = Snapshot(
    token=1,
    waiting_for="generator 7 on a: working for 9 s",
    stalled={"generator 7 on a": "working, no step for 9 s"},
)
COMPILING = Snapshot(
    token=1, waiting_for="generator 7 on a: compiling or taking its first step", preparing=True
)


class FakeClock:
    """Goes on by what is waited for, at once."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def wait(self, stop, seconds):
        self.time += seconds
        return stop.is_set()


def logged(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture(autouse=True)
def info(caplog):
    caplog.set_level("INFO", logger="discl_ray")


def detector():
    return StallDetector(0.0, warning_s=10.0, limit_s=60.0)


def test_what_a_job_waits_for_is_named_once_per_interval(caplog):
    watched = detector()
    for now in (1.0, 5.0, 11.0, 12.0, 22.0, 23.0):
        watched.check(COMPILING, now)
    waiting = f"waiting for {COMPILING.waiting_for}"
    assert logged(caplog) == [
        ("INFO", f"no progress for 11 s: {waiting}"),
        ("INFO", f"no progress for 22 s: {waiting}"),
    ]


def test_a_stalled_worker_is_named_once_until_it_has_recovered(caplog):
    watched = detector()
    recovered = Snapshot(token=2, waiting_for="x")
    for now, snapshot in enumerate((STALLED, STALLED, recovered, STALLED)):
        watched.check(snapshot, float(now))
    warning = ("WARNING", "generator 7 on a may hang: working, no step for 9 s")
    assert logged(caplog) == [warning, warning]


def test_a_job_ends_only_once_the_limit_has_passed_without_progress():
    watched = detector()
    assert watched.check(STALLED, 50.0) is None
    assert watched.check(STALLED, 110.0) is None
    ended = watched.check(STALLED, 110.5)
    assert isinstance(ended, SetupError)
    waited = "60 s without progress, waiting for generator 7 on a: working for 9 s"
    assert str(ended) == f"gave up after {waited}; what is committed stays"


def test_progress_starts_the_limit_and_the_warnings_anew(caplog):
    watched = detector()
    for now in range(0, 1000, 9):
        assert watched.check(Snapshot(token=now, waiting_for="x"), float(now)) is None
    assert logged(caplog) == []


def test_preparing_suspends_the_limit_as_long_as_it_lasts():
    watched = detector()
    for now in range(0, 1000, 9):
        assert watched.check(COMPILING, float(now)) is None
    assert watched.check(STALLED, 999.0 + 61) is not None


def test_without_a_limit_a_job_is_never_ended():
    watched = StallDetector(0.0, warning_s=10.0, limit_s=None)
    assert watched.check(STALLED, 1e9) is None


def watch(look, *, limit_s=60.0):
    """Waits in a watchdog, on a clock of its own, until that ends the waiting."""
    with Watchdog(look, warning_s=10.0, limit_s=limit_s, clock=FakeClock()):
        threading.Event().wait(30)
        pytest.fail("the watchdog did not end the job")


def test_the_watchdog_interrupts_what_the_main_thread_waits_for():
    with pytest.raises(SetupError, match="gave up after 60 s without progress"):
        watch(lambda: STALLED)


def test_the_watchdog_ends_a_job_that_ignores_interrupts():
    # as a shell script does for what it starts in the background
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(SetupError, match="gave up"):
            watch(lambda: STALLED)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_worker_that_cannot_start_ends_the_job_with_its_reason():
    refusal = "scorer.model = 'x': cut short"
    snapshot = Snapshot(token=1, waiting_for="a", preparing=True, refusal=refusal)
    with pytest.raises(ModelError, match="cut short"):
        watch(lambda: snapshot, limit_s=None)


def test_a_snapshot_that_cannot_be_taken_counts_as_no_progress():
    def look():
        raise ConnectionError

    with pytest.raises(SetupError, match="waiting for the job to start"):
        watch(look)


def test_the_reason_survives_code_that_swallows_the_interruption():
    watchdog = Watchdog(lambda: STALLED, warning_s=10.0, limit_s=60.0, clock=FakeClock())
    with pytest.raises(SetupError, match="gave up"), watchdog, suppress(SetupError):
        threading.Event().wait(30)


def test_after_its_end_a_watchdog_leaves_the_signal_alone():
    before = signal.getsignal(signal.SIGUSR1)
    with Watchdog(lambda: COMPILING, warning_s=10.0, limit_s=None):
        assert signal.getsignal(signal.SIGUSR1) != before
    assert signal.getsignal(signal.SIGUSR1) == before


def test_the_machines_clock_goes_forward_and_waits_for_an_event():
    clock, stop = SystemClock(), threading.Event()
    before = clock.now()
    assert not clock.wait(stop, 0.01)
    assert clock.now() - before >= 0.01
    stop.set()
    assert clock.wait(stop, 30.0)
    assert clock.now() - before < 30
