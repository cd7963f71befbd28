"""Heartbeats: each worker reports what it is doing, and the driver reads all reports at once.

A worker that cannot load its model reports the reason, with which the driver ends the job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from discl_ray.cluster.watchdog import Snapshot
from discl_ray.errors import ModelError

READ_TIMEOUT_S = 10.0
"""Seconds within which the actor has to answer the driver."""
LOST_S = 10.0
"""Seconds without a report after which a worker may be dead; generators report every second."""
REFUSAL_S = 60.0
"""Seconds a worker that cannot load its model waits for the driver to end the job."""

Phase = Literal["loading", "starting", "working", "idle"]
"""`starting` is the first step, which may compile the model."""

PHASES: dict[Phase, str] = {
    "loading": "loading its weights",
    "starting": "compiling or taking its first step",
    "working": "working",
    "idle": "idle",
}


@dataclass(frozen=True, kw_only=True)
class WorkerSigns:
    """What a worker is doing."""

    phase: Phase
    images: int = 0
    """Images made."""
    total_rows: int = 0
    """UNet rows computed; grows with every step."""


@dataclass(frozen=True, kw_only=True)
class GeneratorSigns(WorkerSigns):
    """What a generator is doing, and what was measured of it."""

    steps: int
    """UNet rows computed in `seconds`, the first step excluded."""
    seconds: float
    micro_batch: int
    peak_bytes: int
    """Largest memory of the process: what torch allocated on a GPU, else the resident size."""


@dataclass(frozen=True)
class Report:
    """A worker's last report, and how old it is."""

    signs: WorkerSigns
    unchanged_s: float
    """Seconds since the worker last got on."""
    unheard_s: float
    """Seconds since it last reported."""


@dataclass(frozen=True)
class _Entry:
    signs: WorkerSigns
    changed_at: float
    reported_at: float


class Heartbeat:
    """Collects the workers' reports. Runs as a Ray actor beside the driver."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._refusal: str | None = None

    def report(self, worker: str, signs: WorkerSigns) -> None:
        """Records what a worker is doing now."""
        now = self._clock()
        before = self._entries.get(worker)
        changed_at = now
        if before is not None and _position(before.signs) == _position(signs):
            changed_at = before.changed_at
        self._entries[worker] = _Entry(signs, changed_at, now)

    def refuse(self, reason: str) -> None:
        """Records that a worker cannot load its model."""
        self._refusal = reason

    def refusal(self) -> str | None:
        """Why a worker could not load its model, if one could not."""
        return self._refusal

    def read(self) -> dict[str, Report]:
        """The last report of every worker."""
        now = self._clock()
        return {
            worker: Report(entry.signs, now - entry.changed_at, now - entry.reported_at)
            for worker, entry in self._entries.items()
        }


def _position(signs: WorkerSigns) -> tuple[Phase, int, int]:
    """What changes when a worker makes progress."""
    return signs.phase, signs.images, signs.total_rows


@contextmanager
def report_loading(heartbeat: Any, worker: str, *, wait_s: float = REFUSAL_S) -> Iterator[None]:
    """Reports that a worker loads its model, and the reason if that fails with ModelError.

    After a failure it waits `wait_s` seconds before raising: the driver ends the job with the
    reported reason, which would otherwise arrive inside pages of Ray's tracebacks. `heartbeat` is
    the actor's handle, or None for a worker without a driver to report to.
    """
    if heartbeat is not None:
        heartbeat.report.remote(worker, WorkerSigns(phase="loading"))
    try:
        yield
    except ModelError as error:
        if heartbeat is not None:
            heartbeat.refuse.remote(str(error))
            time.sleep(wait_s)
        raise


def observe(heartbeat: Any, done: int, stall_s: float) -> Snapshot:
    """Snapshot of a job's workers from the actor `heartbeat`; `done` is what the driver counted."""
    import ray

    asked = [heartbeat.read.remote(), heartbeat.refusal.remote()]
    reports, refusal = ray.get(asked, timeout=READ_TIMEOUT_S)
    return snapshot_of(reports, done, stall_s, refusal)


def snapshot_of(
    reports: Mapping[str, Report], done: int, stall_s: float, refusal: str | None = None
) -> Snapshot:
    """Snapshot of a job's workers. Loading and the first step are no stall while a worker lives.

    Both may take minutes: weights are read, the model is compiled.
    """
    busy = {name: report for name, report in reports.items() if report.signs.phase != "idle"}
    preparing = {name for name, report in busy.items() if _is_preparing(report)}
    stalled = {
        name: _stall(report)
        for name, report in busy.items()
        if name not in preparing and max(report.unchanged_s, report.unheard_s) > stall_s
    }
    activities = [
        f"{name}: {PHASES[report.signs.phase]} for {report.unchanged_s:.0f} s"
        for name, report in busy.items()
    ]
    return Snapshot(
        token=(done, [_position(report.signs) for report in reports.values()]),
        waiting_for="; ".join(activities) or "the workers to start; see `ray status`",
        stalled=stalled,
        preparing=bool(preparing),
        refusal=refusal,
    )


def _is_preparing(report: Report) -> bool:
    """Whether a worker is loading or at its first step, and alive.

    A process reports nothing while it loads, so that it lives shows only afterwards.
    """
    if report.signs.phase == "loading":
        return True
    return report.signs.phase == "starting" and report.unheard_s < LOST_S


def _stall(report: Report) -> str:
    """What a stalled worker was doing, and for how long."""
    signs = report.signs
    stall = f"{signs.phase}, {signs.images} images made, no step for {report.unchanged_s:.0f} s"
    if report.unheard_s < LOST_S:
        return stall
    return f"{stall}, not heard of for {report.unheard_s:.0f} s (Ray restarts it if it has died)"
