"""A lock with a lease, for object stores, which have no locks.

The lock is an object that only one process can create. Its holder writes it again and again, each
time on condition that nobody else has. Whoever sees it unchanged for the time of a lease takes it
over, on the same condition: of two one wins, and the former holder learns of it by its next write.
The holder's clock and the other's are not compared: each only counts seconds of its own.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, cast

from discl_ray.core.objects import GUARDS, Objects, Version
from discl_ray.core.storage import Store
from discl_ray.errors import SetupError, StorageError
from discl_ray.process.calls import again

log = logging.getLogger(__name__)

LOCK = ".lock"


@dataclass(frozen=True)
class Terms:
    """Times of a lease, in seconds."""

    lease_s: float = 60.0
    """After which a lock that is not renewed may be taken over."""
    renew_s: float = 10.0
    """Between two renewals."""
    look_s: float = 1.0
    """Between two looks at somebody else's lock."""
    request_s: float = 10.0
    """For a request, with all attempts; less than a lease."""


USUAL = Terms()


class Lease:
    """One process's lock of a run on an object store. Not to be used twice."""

    def __init__(self, run: Store, objects: Objects, terms: Terms = USUAL) -> None:
        self.token = uuid.uuid4().hex
        self._run = run
        self._objects = Objects(objects.filesystem, terms.request_s)
        self._path = run.path(LOCK)
        self._terms = terms
        self._since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._beats = 0
        self._stop = threading.Event()
        self._lost: str = ""
        """Why it is lost; empty while it is held."""
        self._until = 0.0
        self._version = Version(None, None)
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")
        self._waiter = threading.get_ident()
        self._can_interrupt = threading.current_thread() is threading.main_thread()

    def take(self, *, wait: bool) -> None:
        """Takes the lock; raises SetupError if somebody holds it, unless told to `wait`."""
        told = False
        while not self.try_once():
            found = self._objects.get(self._path)
            if found is None or _is_free(_parsed(found[0])):
                continue
            if self._is_over(*found) and self._replaced(found[1]):
                break
            holder = words_of(_parsed(found[0]))
            if not wait:
                raise SetupError(
                    f"{self._run.location()}: in use by {holder}; "
                    f"name another run.name, or wait for it, then {again()}"
                )
            if not told:
                log.info("%s: in use by %s; waiting for it", self._run.location(), holder)
                told = True
        self._thread.start()

    def try_once(self) -> bool:
        """Whether the lock was free and is this process's now."""
        begun = time.monotonic()
        found = self._objects.get(self._path)
        if found is not None:
            return _is_free(_parsed(found[0])) and self._replaced(found[1])
        if not self._objects.create(self._path, self._record()):
            return False
        found = self._objects.get(self._path)
        if found is None or _parsed(found[0]).get("token") != self.token:
            return False
        self._hold(found[1], begun)
        return True

    def _is_over(self, data: bytes, version: Version) -> bool:
        """Whether the holder of a lock is dead, or does not renew it for the time of a lease."""
        begun = time.monotonic()
        while time.monotonic() - begun < self._terms.lease_s:
            if _is_dead(_parsed(data)):
                return True
            time.sleep(self._terms.look_s)
            found = self._objects.get(self._path)
            if found is None or found[1] != version:
                return False
        return True

    def _replaced(self, version: Version) -> bool:
        """Whether this process's record is in place of a version now."""
        begun = time.monotonic()
        mine = self._objects.replace(self._path, self._record(), version)
        if mine is None:
            return False
        self._hold(mine, begun)
        return True

    def _hold(self, version: Version, begun: float) -> None:
        self._version = version
        self._until = begun + self._terms.lease_s

    def _record(self, *, free: bool = False) -> bytes:
        """The lock's content, which differs each time."""
        self._beats += 1
        expires = time.time() + self._terms.lease_s
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "processes": _processes(),
            "since": self._since,
            "expires": expires,
            "token": self.token,
            "beat": self._beats,
            "free": free,
        }
        return json.dumps(record).encode()

    def _keep(self) -> None:
        """Renews the lock until it is released or lost."""
        while not self._stop.wait(self._terms.renew_s):
            begun = time.monotonic()
            try:
                mine = self._objects.replace(self._path, self._record(), self._version)
            except OSError as error:
                log.debug("%s: not renewed: %s", self._path, error)
                if time.monotonic() > self._until:
                    self._lose("could not be renewed in time")
                    return
                continue
            if mine is None:
                self._lose(f"was taken over by {self._other()}")
                return
            self._hold(mine, begun)

    def _other(self) -> str:
        """Whoever holds the lock now, in words."""
        try:
            found = self._objects.get(self._path)
        except OSError:
            found = None
        return words_of(_parsed(found[0])) if found else "another process"

    def _lose(self, why: str) -> None:
        self._lost = why
        if self._can_interrupt and not self._stop.is_set():
            signal.pthread_kill(self._waiter, signal.SIGUSR2)

    def check(self) -> None:
        """Raises StorageError if the lock is lost."""
        if not self._lost and time.monotonic() <= self._until:
            return
        why = self._lost or "was not renewed in time"
        raise StorageError(
            f"{self._run.location()}: this process's lock {why}; "
            "it stops here, what is committed stays"
        )

    def release(self) -> None:
        """Lets the lock go, unless it is lost."""
        self._stop.set()
        self._thread.join()
        if self._lost:
            return
        try:
            # In place of this version only: it may just have been taken over.
            self._objects.replace(self._path, self._record(free=True), self._version)
        except OSError as error:
            log.debug("%s: not released: %s", self._path, error)


HELD: dict[str, Lease] = {}
"""Locks of this process by the folder they are for."""


@contextmanager
def leased(run: Store, *, wait: bool = False, terms: Terms = USUAL) -> Generator[None]:
    """Holds the lock of a run on an object store.

    If it is lost, writing into the run raises StorageError, and so does the main thread, whatever
    it does, if it took the lock. Raises SetupError if another process holds it, unless told to
    `wait`. Without conditional writes there is no lock.
    """
    objects = run.objects
    if objects is None:
        yield
        return
    lease = Lease(run, objects, terms)
    lease.take(wait=wait)
    HELD[run.base] = lease
    GUARDS[f"{run.base}/"] = lease.check
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGUSR2, _raise) if is_main else None
    try:
        yield
        lease.check()
    except Exception:
        lease.check()  # others may have caught it, or raised something else because of it
        raise
    finally:
        del HELD[run.base], GUARDS[f"{run.base}/"]
        lease.release()
        if is_main:
            signal.signal(signal.SIGUSR2, before)


def _raise(_signal: int, _frame: FrameType | None) -> None:
    """Raises in the main thread what a lost lock is told by."""
    for lease in list(HELD.values()):
        lease.check()


def token_of(run: Store) -> str:
    """What shows a worker that this process holds a run's lock; empty on a local disk."""
    lease = HELD.get(run.base)
    return lease.token if lease else ""


def check_token(run: Store, token: str) -> None:
    """Raises StorageError if a run's lock is not its driver's any more."""
    objects = run.objects
    if not token or objects is None:
        return
    found = objects.get(run.path(LOCK))
    record = _parsed(found[0]) if found else {}
    if record.get("token") != token:
        raise StorageError(
            f"{run.location()}: this job's lock was taken over by {words_of(record)}; "
            "it stops here, what is committed stays"
        )


def lock_record(run: Store) -> dict[str, Any]:
    """The record of a run's lock; empty if there is none, or it is free or has expired."""
    objects = run.objects
    found = objects.get(run.path(LOCK)) if objects is not None else None
    record = _parsed(found[0]) if found else {}
    over = _is_free(record) or _is_dead(record) or record.get("expires", 0) < time.time()
    return {} if over else record


def words_of(record: dict[str, Any]) -> str:
    """The holder of a lock in words."""
    try:
        return f"process {record['pid']} on {record['host']} since {record['since']}"
    except KeyError:
        return "another process"


def _parsed(data: bytes) -> dict[str, Any]:
    """A lock's record; empty if it is none."""
    try:
        record = json.loads(data)
    except ValueError:
        return {}
    return cast(dict[str, Any], record) if isinstance(record, dict) else {}


def _is_free(record: dict[str, Any]) -> bool:
    return bool(record.get("free"))


def _is_dead(record: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    here = (socket.gethostname(), _processes())
    if (record.get("host"), record.get("processes")) != here:
        return False
    try:
        os.kill(int(record["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, KeyError, TypeError, ValueError):
        return False
    return False


def _processes() -> str:
    """The numbering of processes that this one belongs to: each container and each start its own.

    Empty where there is no /proc.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
