"""How far a job is, and whether it still gets on: a progress line, what the workers say of themselves, and a watchdog.

Nothing hangs in silence: a worker that stands still is named, loading and compiling are told from hanging, and a worker that
cannot use its model ends the job with the reason.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from discl_ray.errors import DisclError, ModelError, SetupError


class Progress:
    """One line that says how far a job is; on a terminal it is rewritten, in a log it is repeated."""

    def __init__(self, total: int, what: str) -> None:
        self.total, self.what, self.done, self.start = total, what, 0, time.monotonic()
        self.live = sys.stdout.isatty()

    def advance(self, count: int, note: str = "") -> None:
        """Counts `count` more and shows where that is."""
        self.done += count
        seconds = time.monotonic() - self.start
        left = seconds / max(self.done, 1) * (self.total - self.done)
        rate = self.done / max(seconds, 1e-9)
        line = f"  {self.done}/{self.total} {self.what} · {rate:.1f}/s · about {left:.0f} s left {note}".rstrip()
        print(f"\r{line:<100}" if self.live else line, end="" if self.live else "\n", flush=True)

    def close(self) -> None:
        """Ends the line on a terminal."""
        if self.live:
            print()


class Pulse:
    """What every worker of a job said last, and for how long it has said the same. Runs as a Ray actor."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[dict[str, Any], float, float]] = {}
        self._refusal: str | None = None

    def beat(self, name: str, signs: dict[str, Any]) -> None:
        """A worker says what it is at (`phase`) and how far it is."""
        now = time.monotonic()
        before, since, _ = self._said.get(name, (None, now, now))
        moved = before is None or any(
            signs.get(k) != before.get(k) for k in ("phase", "images", "total_rows")
        )
        self._said[name] = signs, now if moved else since, now

    def refuse(self, reason: str) -> None:
        """A worker cannot use its model."""
        self._refusal = reason

    def refusal(self) -> str | None:
        """Why a worker could not start, if one said so."""
        return self._refusal

    def read(self) -> dict[str, dict[str, Any]]:
        """Worker -> what it said last, `unchanged_s` and `unheard_s`."""
        now = time.monotonic()
        return {
            n: {**signs, "unchanged_s": now - since, "unheard_s": now - at}
            for n, (signs, since, at) in self._said.items()
        }


@contextmanager
def telling(pulse: Any, name: str) -> Iterator[None]:
    """Loading a model in a worker: says so, and says why if it cannot be.

    Then it waits: the driver ends the job with that reason, which through Ray would be lost in pages of tracebacks.
    """
    if pulse is not None:
        pulse.beat.remote(name, {"phase": "loading"})
    try:
        yield
    except ModelError as error:
        if pulse is not None:
            pulse.refuse.remote(str(error))
            time.sleep(60)
        raise


class Sight(NamedTuple):
    """What a look at a job shows."""

    token: object
    """Changes whenever the job gets on."""
    waiting_for: str
    """What it is waiting for."""
    silent: dict[str, str]
    """Workers that have not got on for too long, and what each was at."""
    patient: bool
    """Whether somebody is loading or compiling, which may take long and is no hang."""
    refusal: str | None = None
    """Why a worker could not start."""


def sight_of(signs: dict[str, dict[str, Any]], done: int, silent_s: float) -> Sight:
    """A job's workers at a glance. Loading and the first step may take minutes (compiling) and are no silence, if the worker lives."""
    getting_ready = [n for n, s in signs.items() if s["phase"] in ("loading", "starting")]
    alive = [
        n for n in getting_ready if signs[n]["phase"] == "loading" or signs[n]["unheard_s"] < 10
    ]
    silent = {
        name: f"{s['phase']}, {s.get('images', 0)} images made, no step for {s['unchanged_s']:.0f} s"
        + (
            ""
            if s["unheard_s"] < 10
            else f", not heard of for {s['unheard_s']:.0f} s (Ray restarts it if it has died)"
        )
        for name, s in signs.items()
        if s["phase"] != "idle"
        and name not in alive
        and max(s["unchanged_s"], s["unheard_s"]) > silent_s
    }
    words = {"loading": "loading its weights", "starting": "compiling or taking its first step"}
    busy = [
        f"{n}: {words.get(s['phase'], s['phase'])} for {s['unchanged_s']:.0f} s"
        for n, s in signs.items()
        if s["phase"] != "idle"
    ]
    token = (done, [(s["phase"], s.get("images"), s.get("total_rows")) for s in signs.values()])
    return Sight(
        token, "; ".join(busy) or "the workers to start; see `ray status`", silent, bool(alive)
    )


class Watchdog:
    """Looks at a job every second: names what is waited for when nothing gets on, and ends the job if that is configured.

    Use as a context manager, in the main thread. Raises SetupError after `limit_s`, ModelError if a worker could not start.
    """

    def __init__(
        self, look: Callable[[], Sight], *, warning_s: float, limit_s: float | None
    ) -> None:
        self.look, self.warning_s, self.limit_s = look, warning_s, limit_s
        self._moved = self._last = self._warned = time.monotonic()
        self._sight = Sight(None, "the job to start", {}, False)
        self._told: set[str] = set()
        self._stop, self._ending = threading.Event(), threading.Lock()
        self._reason: DisclError | None = None
        self._watched = threading.get_ident()

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self.warning_s / 4)):
            try:
                sight = self.look()
            except Exception:  # a look that fails is a look in which nothing moved
                sight = self._sight
            now = time.monotonic()
            if sight.token != self._sight.token:
                self._moved = self._warned = now
            self._last = now if sight.patient else max(self._last, self._moved)
            self._sight = sight
            if sight.refusal:
                self._interrupt(ModelError(sight.refusal))
                return
            for name in sight.silent.keys() - self._told:
                print(f"  {name} may hang: {sight.silent[name]}", flush=True)
            self._told = set(sight.silent)
            if now - self._warned > self.warning_s:
                print(
                    f"  no progress for {now - self._moved:.0f} s: waiting for {sight.waiting_for}",
                    flush=True,
                )
                self._warned = now
            if self.limit_s is not None and now - self._last > self.limit_s:
                waited = f"{self.limit_s:.0f} s without progress, waiting for {sight.waiting_for}"
                self._interrupt(SetupError(f"gave up after {waited}; what is committed stays"))
                return

    def _interrupt(self, reason: DisclError) -> None:
        """Ends what the main thread is at. Not by SIGINT: a job in the background of a shell script is started deaf to it."""
        with self._ending:
            if not self._stop.is_set():  # after its end nobody would be there to catch the signal
                self._reason = reason
                signal.pthread_kill(self._watched, signal.SIGUSR1)

    def _raise(self, _signal: int, _frame: FrameType | None) -> None:
        if self._reason is not None:
            raise self._reason

    def __enter__(self) -> Watchdog:
        self._before = signal.signal(signal.SIGUSR1, self._raise)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._ending:
            self._stop.set()
        signal.signal(signal.SIGUSR1, self._before)
        if (
            self._reason is not None
        ):  # whatever the interruption turned into on its way through other code
            raise self._reason
