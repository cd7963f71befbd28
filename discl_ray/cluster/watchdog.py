"""Stall detection: warns when a job makes no progress, and ends it at a limit.

Loading and compiling are told from a stall, and a worker that cannot load its model ends the job
with the reason.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from discl_ray.errors import DisclError, ModelError, SetupError

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Seconds between two snapshots, at most."""

RESEND_S = 0.2
"""Seconds after which the main thread is interrupted again if it has not noticed."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A job's state at one moment."""

    token: object
    """Changes whenever the job makes progress."""
    waiting_for: str
    """What the job is waiting for."""
    stalled: Mapping[str, str] = field(default_factory=dict)
    """Workers that made no progress for too long, and what each was doing."""
    preparing: bool = False
    """Whether a worker is loading or compiling, which may take long and is no stall."""
    refusal: str | None = None
    """Why a worker could not start."""


class Clock(Protocol):
    """Time, as a watchdog needs it."""

    def now(self) -> float:
        """Seconds of a clock that only goes forward."""
        ...

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Waits until `stop` is set or `seconds` have passed; whether it is set."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since some moment in the past."""
        return time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Waits until `stop` is set or `seconds` have passed; whether it is set."""
        return stop.wait(seconds)


class StallDetector:
    """Compares a snapshot of a job with those before. Has no clock: times are arguments."""

    def __init__(self, now: float, *, warning_s: float, limit_s: float | None) -> None:
        self.warning_s = warning_s
        self.limit_s = limit_s
        self.last = Snapshot(token=None, waiting_for="the job to start")
        self._progressed_at = now
        self._warned_at = now
        self._counted_from = now
        """Start of the limit: the last progress, or the last snapshot with a preparing worker."""
        self._named: set[str] = set()

    def check(self, snapshot: Snapshot, now: float) -> DisclError | None:
        """Logs new stalls; returns the error that ends the job, if it is to end."""
        if snapshot.token != self.last.token:
            self._progressed_at = self._warned_at = self._counted_from = now
        if snapshot.preparing:
            self._counted_from = now
        self.last = snapshot
        if snapshot.refusal:
            return ModelError(snapshot.refusal)
        self._warn(snapshot, now)
        if self.limit_s is None or now - self._counted_from <= self.limit_s:
            return None
        waited = f"{self.limit_s:.0f} s without progress, waiting for {snapshot.waiting_for}"
        return SetupError(f"gave up after {waited}; what is committed stays")

    def _warn(self, snapshot: Snapshot, now: float) -> None:
        for name in snapshot.stalled.keys() - self._named:
            log.warning("%s may hang: %s", name, snapshot.stalled[name])
        self._named = set(snapshot.stalled)
        if now - self._warned_at > self.warning_s:
            seconds = now - self._progressed_at
            log.info("no progress for %.0f s: waiting for %s", seconds, snapshot.waiting_for)
            self._warned_at = now


class Watchdog:
    """Takes a snapshot of a job every second, and ends the job if it stalls.

    Use as a context manager, in the main thread. Raises SetupError after `limit_s` seconds without
    progress, ModelError if a worker could not start.
    """

    def __init__(
        self,
        look: Callable[[], Snapshot],
        *,
        warning_s: float,
        limit_s: float | None,
        clock: Clock | None = None,
    ) -> None:
        self._look = look
        self._clock = clock or SystemClock()
        self._detector = StallDetector(self._clock.now(), warning_s=warning_s, limit_s=limit_s)
        self._interval = min(LOOK_S, warning_s / 4)
        self._stop = threading.Event()
        self._handled = threading.Event()
        self._ending = threading.Lock()
        self._reason: DisclError | None = None
        self._watched = threading.get_ident()

    def _watch(self) -> None:
        while not self._clock.wait(self._stop, self._interval):
            try:
                snapshot = self._look()
            except Exception:  # the actor may be busy or gone: nothing is known to have moved
                snapshot = self._detector.last
            reason = self._detector.check(snapshot, self._clock.now())
            if reason is not None:
                self._interrupt(reason)
                return

    def _interrupt(self, reason: DisclError) -> None:
        """Raises in the main thread, by a signal.

        Not SIGINT: a job that a shell script starts in the background ignores it.
        """
        # again until it is handled: one that comes just before a wait begins does not end the wait
        while not self._handled.is_set():
            with self._ending:
                if self._stop.is_set():  # after __exit__ its default action would kill us
                    return
                self._reason = reason
                signal.pthread_kill(self._watched, signal.SIGUSR1)
            self._handled.wait(RESEND_S)

    def _raise(self, _signal: int, _frame: FrameType | None) -> None:
        if self._reason is not None and not self._handled.is_set():
            self._handled.set()
            raise self._reason

    def __enter__(self) -> Watchdog:
        self._before = signal.signal(signal.SIGUSR1, self._raise)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._ending:
            self._stop.set()
        signal.signal(signal.SIGUSR1, self._before)
        # other code may have caught the interruption, or raised something else because of it
        if self._reason is not None:
            raise self._reason
