"""A run's directory: where a step writes, who may write there, and what closes it.

    runs/<name>/generate-<hash8>/        one spectrum
    runs/<name>/table-<hash8>/           its images decoded, for all training runs on it
    runs/<name>/train-<hash8>-s<seed>/   one training run

The hash is of the step's identity fields and of the step before, so another λ grid is another
directory and a smaller micro-batch is the same one. `config.yaml` holds the resolved configuration,
`MANIFEST.json` closes a complete run.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from discl_ray.core.lease import leased, lock_record, words_of
from discl_ray.core.storage import UNOPENED, Store
from discl_ray.errors import REMEDIES, IntegrityError, SetupError, trouble_of_store
from discl_ray.process.calls import again, in_submitted_job
from discl_ray.process.masking import masked

log = logging.getLogger(__name__)

MANIFEST = "MANIFEST.json"


ANSWER_S = 20.0
"""Seconds within which the run root must answer; a server that is down may never answer."""


def check_root(root: str) -> None:
    """Raises SetupError unless runs can be written below `run.root`; leaves nothing behind."""
    found: list[BaseException] = []

    def look() -> None:
        try:
            Store.at(root).probe()
        except BaseException as error:  # told in the thread that waits
            found.append(error)

    # A daemon: one that never gets an answer must not keep the process from ending.
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    named = f"run.root = '{root}'"
    if thread.is_alive():
        raise SetupError(
            f"{named}: does not answer within {ANSWER_S:g} s; "
            "mend the mount or the address, or set run.root"
        )
    if not found:
        return
    raise _unwritable_root(root, found[0]) from found[0]


def _unwritable_root(root: str, error: BaseException) -> SetupError:
    """The error for a run root that `error` was raised for."""
    named = f"run.root = '{root}'"
    trouble = trouble_of_store(str(error))
    if trouble is not None:
        why, remedy = trouble
        return SetupError(f"{named}: cannot be written ({why}); {remedy}")
    number, strerror = 0, None
    usual = "set run.root to a folder, or to a URI such as s3://bucket/runs"
    if isinstance(error, OSError):
        number, strerror = error.errno or 0, error.strerror
        usual = "set run.root to a folder you may write"
    why = strerror or masked(" ".join(str(error).split()))[:300]
    remedy = REMEDIES.get(number, usual)
    remedy = remedy.replace("name a", "set run.root to a")
    return SetupError(f"{named}: cannot be written ({why}); {remedy}")


def run_store(root: str, name: str, directory: str) -> Store:
    """The store of a run's step; of all its steps if `directory` is empty.

    Raises SetupError for a relative root inside a submitted job, where the working directory is a
    temporary copy, and for a URI that cannot be opened.
    """
    if in_submitted_job() and "://" not in root and not os.path.isabs(root):
        raise SetupError(
            f"run.root = '{root}': a submitted job needs an absolute path or a URI that all nodes "
            "share, e.g. run.root=/shared/runs"
        )
    try:
        store = Store.at(root)
    except UNOPENED as error:
        raise _unwritable_root(root, error) from error
    return store.within(f"{name}/{directory}".rstrip("/"))


@contextmanager
def locked(run: Store, *, wait: bool = False) -> Generator[None]:
    """Locks a run for this process, and removes half-written files at the end.

    The operating system releases the lock if the process dies; on an object store it is a lease
    (`core.lease`). Raises SetupError if another process holds it, unless told to `wait`, or if the
    directory cannot be written.
    """
    if run.local is None:
        with leased(run, wait=wait):
            yield
        return
    try:
        run.local.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run.local / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            if not wait:
                raise SetupError(
                    f"{run.local}: in use by {_holder(run)}; "
                    f"name another run.name, or wait for it, then {again()}"
                ) from error
            log.info("%s: in use by %s; waiting for it", run.local, _holder(run))
            lock.acquire(timeout=-1)
    except OSError as error:
        raise SetupError(
            f"{run.local}: cannot be written ({error.strerror}); "
            "set run.root to a folder you may write"
        ) from error
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    try:
        (run.local / ".holder").write_text(json.dumps(holder))
        yield
    finally:
        run.sweep()  # this holder's predecessor may have died while it wrote
        (run.local / ".holder").unlink(missing_ok=True)
        lock.release()


def holder(run: Store) -> str:
    """The process that holds a run now, in words; empty if nobody is known to."""
    if run.local is None:
        record = lock_record(run)
        return words_of(record) if record else ""
    try:
        who = run.read_json(".holder")
        if who["host"] == socket.gethostname():
            # Raises if there is no such process: it was killed and left its note.
            os.kill(int(who["pid"]), 0)
    except (IntegrityError, KeyError, TypeError, ValueError, ProcessLookupError):
        return ""
    except PermissionError:  # another user's process is one
        return _holder(run)
    return _holder(run)


def _holder(run: Store) -> str:
    """The process that locked a run last, in words; it may have ended."""
    try:
        who = run.read_json(".holder")
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (IntegrityError, KeyError, TypeError):
        return "another process"


CONFIG = "config.yaml"


PLAN_FILE = "plan.parquet"
"""PLAN of a run that an earlier version laid out, in one file."""


SOURCES_FILE = "sources.parquet"
"""SAMPLES of the real images of such a run, in one file."""


SOURCES = "sources"
"""The folder of SAMPLES of the real images that a run starts from."""


SHARDS_FILE = "shards.parquet"
"""SHARDS of a run, written when all that it is made from is there."""
