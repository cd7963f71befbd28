"""Stops a job at Ctrl-C, SIGTERM or a closed terminal: one line with the command that resumes it.

It ends within seconds, without a traceback. Ray, Ray Train and Ray Tune install handlers of their
own (Ray's exits with another code, Ray Train's goes on with the next run, Ray Tune's waits): once
a job listens, `signal.signal` ignores attempts to replace its handlers. The core worker's C++
handler, which prints a stack dump and then calls ours, is replaced again by `hold`.

Writes are atomic and what is committed stays, so a job may be stopped at any moment.
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
"""Seconds after a signal in which the main thread can end the job; then it is killed."""

AGAIN_S = 1.0
"""A second signal kills the job if it comes later than this: `timeout` and some batch systems send
each signal twice.
"""


class Stopped(SystemExit):
    """The job was told to stop. Not an Exception: no handler of failures catches it."""


class _State:
    """What this process has been told, and what it needs to say so."""

    listening = False
    line = ""
    stderr = 2
    signal = 0
    since = 0.0
    children: frozenset[tuple[int, str]] = frozenset()


_state = _State()
_telling = threading.Lock()
"""Acquired, and never released, by whoever prints the last line."""
_set: Callable[..., Any] = signal.signal
"""The original: `listen` replaces `signal.signal`."""


def listen() -> None:
    """Stops this process at a signal, with the command that resumes it and exit code 128 + signal.

    Call it in the main thread.

    Signals that were ignored when the process started (by nohup, by a shell's `&`) stay ignored.
    """
    if _state.listening:
        return
    _state.listening = True
    _open_closed()
    call = Call.this()
    _state.line = f"stopped; go on with: {call.command()}" if call.script else "stopped"
    atexit.register(_close)  # registered first, so it runs last
    _state.stderr = os.dup(2)
    heard, rung = socket.socketpair()
    rung.setblocking(False)
    signal.set_wakeup_fd(rung.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(heard,), daemon=True, name="stopping").start()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            _set(number, _end)
    signal.signal = _leave_ours


def hold() -> None:
    """Installs the handlers again after C++ code has replaced them."""
    for number in SIGNALS:
        if signal.getsignal(number) is _end:
            _set(number, _end)


def end(number: int) -> NoReturn:
    """Stops this process as a signal would."""
    _tell(number)
    leave(128 + _state.signal)


def told() -> int:
    """The signal that stopped this process, or 0."""
    return _state.signal


def leave(code: int) -> NoReturn:
    """Ends this process and all processes it started, at once."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    _go(code)


def _go(code: int) -> NoReturn:
    for process, started in _state.children | descendants():
        with contextlib.suppress(OSError):
            if process_stat(process)[1] == started:  # not another process with the same number
                os.kill(process, signal.SIGKILL)
    os._exit(code)


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Drops what C++ and Python code write to stderr meanwhile."""
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
        if not _state.signal:  # a stopped job prints nothing after its last line
            os.dup2(kept, 2)
        os.close(kept)


def descendants(ancestor: int | None = None) -> frozenset[tuple[int, str]]:
    """Processes that one (default: this) started, and their descendants: (id, start time).

    Empty where there is no /proc.
    """
    children: dict[int, list[int]] = {}
    started: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            process = int(folder.name)
            parent, started[process] = process_stat(process)
            children.setdefault(parent, []).append(process)
    found: list[int] = []
    waiting = list(children.get(ancestor or os.getpid(), []))
    while waiting:
        process = waiting.pop()
        found.append(process)
        waiting += children.get(process, [])
    return frozenset((process, started[process]) for process in found)


def _open_closed() -> None:
    """Opens stdin, stdout and stderr if the process was started without them.

    Otherwise files would get their numbers, and be written into by what prints.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def process_stat(process: int) -> tuple[int, str]:
    """A process's parent and start time; raises OSError if there is no such process."""
    text = Path(f"/proc/{process}/stat").read_text(errors="replace")
    fields = text.rpartition(")")[2].split()  # the name before it may contain spaces
    return int(fields[1]), fields[19]


def _end(number: int, _frame: FrameType | None) -> None:
    """The signal handler; Python calls it in the main thread, between two instructions."""
    if not _state.signal:
        _tell(number)
        raise Stopped(128 + number)
    if time.monotonic() - _state.since > AGAIN_S:
        _go(128 + number)


def _close() -> None:
    """Runs last at exit: a stopped job ends with the signal's exit code, any other with its own."""
    if _state.signal:
        leave(128 + _state.signal)
    for number in SIGNALS:
        _set(number, signal.SIG_IGN)


def _leave_ours(number: int, handler: Any) -> Any:
    """`signal.signal` while a job listens: leaves the job's handlers in place."""
    return signal.getsignal(number) if number in SIGNALS else _set(number, handler)


def _tell(number: int) -> None:
    """Prints the last line, once, and silences the process."""
    if not _telling.acquire(blocking=False):
        return
    _state.signal, _state.since = number, time.monotonic()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    newline = "\n" if os.isatty(1) else ""  # a line of progress may be open
    encoding = sys.stderr.encoding or "utf-8"
    line = f"{newline}{_state.line}\n".encode(encoding, "replace")
    with contextlib.suppress(OSError):
        os.write(_state.stderr, line)
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            _silence(stream)
    _state.children = descendants()


def _silence(stream: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)


def _watch(heard: socket.socket) -> None:
    """Kills the process if the main thread does not end it.

    That may be inside C++ code, or wait for what does not come.
    """
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
    # without a flush, which would wait if the reader of a pipe has stopped reading
    _go(128 + number)
