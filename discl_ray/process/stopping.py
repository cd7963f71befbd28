"""Ctrl-C, SIGTERM and a closed terminal: one line with the command that goes on, then an end within seconds, without a trace.

Ray, Ray Train and Ray Tune put handlers of their own in place (Ray's ends with another exit code, Ray Train's goes on with the next
run, Ray Tune's waits): once a job listens, `signal.signal` leaves these signals to it. The core worker's C++ handler, which prints a
dump and then calls ours, is taken back by `hold`.

What is committed stays, and a write is whole or not at all, so a job may be ended at any moment.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from discl_ray.process.calls import Call

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

PATIENCE_S = 7.0
"""After this long a job that was told to end is ended, whatever it is at."""

AGAIN_S = 1.0
"""A second signal later than this ends it at once; `timeout` and some batch systems send each signal twice."""


class Stopped(SystemExit):
    """The job was told to end. Not an Exception: nothing that takes up failures takes this up."""


class _Told:
    """What this process was told."""

    listening = False
    line = ""
    stderr = 2
    signal = 0
    since = 0.0
    children: frozenset[tuple[int, str]] = frozenset()


_told, _telling = _Told(), threading.Lock()
_set: Callable[..., Any] = signal.signal


def listen() -> None:
    """From here on a signal ends this process with the command that goes on, and exit code 128 + signal. Main thread only.

    Signals that were ignored when the process was started (by nohup, by a shell's `&`) stay ignored.
    """
    if _told.listening:
        return
    _told.listening = True
    _open_closed()
    call = Call.this()
    _told.line = f"stopped; go on with: {call.command()}" if call.script else "stopped"
    atexit.register(_close)  # the first, so the last to be run
    _told.stderr = os.dup(2)
    heard, rung = socket.socketpair()
    rung.setblocking(False)
    signal.set_wakeup_fd(rung.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(heard,), daemon=True, name="stopping").start()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            _set(number, _end)
    signal.signal = _leave_ours


def hold() -> None:
    """Takes the signals back from C++ code that has put a handler of its own in place."""
    for number in SIGNALS:
        if signal.getsignal(number) is _end:
            _set(number, _end)


def end(number: int) -> NoReturn:
    """Ends this process as a signal would."""
    _tell(number)
    leave(128 + _told.signal)


def told() -> int:
    """The signal by which this process was told to end, or 0."""
    return _told.signal


def leave(code: int) -> NoReturn:
    """Ends this process and all that it has started, now."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    _go(code)


def _go(code: int) -> NoReturn:
    for process, started in _told.children | descendants():
        with contextlib.suppress(OSError):
            if _stat(process)[1] == started:  # not another process with the same number
                os.kill(process, signal.SIGKILL)
    os._exit(code)


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """What C++ code writes to stderr meanwhile is dropped, and so is what Python writes."""
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # started without a stderr
        yield
        return
    _silence(2)
    try:
        yield
    finally:
        if not _told.signal:  # after its last line a stopped job says nothing
            os.dup2(kept, 2)
        os.close(kept)


def descendants(ancestor: int | None = None) -> frozenset[tuple[int, str]]:
    """All processes that one (default: this) started, and that those did: (number, when started). Empty where there is no /proc."""
    parents: dict[int, list[int]] = {}
    started: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            process = int(folder.name)
            parent, started[process] = _stat(process)
            parents.setdefault(parent, []).append(process)
    found: list[int] = []
    waiting = parents.get(ancestor or os.getpid(), [])
    while waiting:
        found += waiting
        waiting = [child for process in waiting for child in parents.get(process, [])]
    return frozenset((process, started[process]) for process in found)


def _open_closed() -> None:
    """A process started without stdin, stdout or stderr gets them: files would be opened in their places, and be written into."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _stat(process: int) -> tuple[int, str]:
    """A process's parent and when it was started; raises OSError if there is no such process."""
    fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(fields[1]), fields[19]


def _end(number: int, _frame: FrameType | None) -> None:
    """The handler: Python calls it in the main thread, between two instructions."""
    if not _told.signal:
        _tell(number)
        raise Stopped(128 + number)
    if time.monotonic() - _told.since > AGAIN_S:
        _go(128 + number)


def _close() -> None:
    """The last before Python is taken down: a job that was told to end does so; another has ended, and has its own exit code."""
    if _told.signal:
        leave(128 + _told.signal)
    for number in SIGNALS:
        _set(number, signal.SIG_IGN)


def _leave_ours(number: int, handler: Any) -> Any:
    """`signal.signal` while a job listens."""
    return signal.getsignal(number) if number in SIGNALS else _set(number, handler)


def _tell(number: int) -> None:
    """Says the last line, once."""
    if not _telling.acquire(blocking=False):
        return
    _told.signal, _told.since = number, time.monotonic()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    newline = "\n" if os.isatty(1) else ""  # a line of progress may stand open
    with contextlib.suppress(OSError):
        os.write(
            _told.stderr,
            f"{newline}{_told.line}\n".encode(sys.stderr.encoding or "utf-8", "replace"),
        )
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            _silence(stream)
    _told.children = descendants()


def _silence(stream: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)


def _watch(heard: socket.socket) -> None:
    """Ends the process if the main thread does not: it may be deep in C++ code, or be waiting for what does not come."""
    number = 0
    while number not in SIGNALS or signal.getsignal(number) is not _end:
        number = heard.recv(1)[0]
    since = time.monotonic()
    while (left := since + PATIENCE_S - time.monotonic()) > 0:
        heard.settimeout(left)
        with contextlib.suppress(TimeoutError):
            if heard.recv(1)[0] in SIGNALS and time.monotonic() - since > AGAIN_S:
                break
    _tell(number)
    _go(
        128 + number
    )  # without a flush: the main thread may be waiting for a reader that has stopped
