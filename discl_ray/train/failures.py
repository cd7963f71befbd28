"""Errors that end a Ray Train run, and their reason in one sentence.

Ray Train's controller imports the modules of its callbacks: this one leaves out PyTorch, which
takes seconds to import.
"""

from __future__ import annotations

from typing import Any

import ray.train

from discl_ray.cluster.ending import end_without_destructors
from discl_ray.errors import DisclError


class Final(ray.train.UserCallback):
    """Fails fast on DisclError: it is deterministic, and Ray Train would retry it.

    Ray Train retries what a worker raises, not what a callback raises.
    """

    def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
        """Called by Ray Train's controller after each epoch; the controller's process ends well."""
        end_without_destructors()

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller; raises DisclError if a worker did."""
        for error in worker_exceptions.values():
            if (ours := _own_error(error)) is not None:
                raise DisclError(ours)


def reason_of(error: BaseException) -> str:
    """What went wrong in a worker, without Ray's traceback."""
    of_workers = getattr(error, "worker_failures", None) or {}
    of_controller = getattr(error, "controller_failure", None)
    failures = [*of_workers.values(), of_controller, error]
    for failure in failures:
        if failure is not None and (ours := _own_error(failure)) is not None:
            return ours
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    words = lines[-1].split()
    return " ".join(words)[:500]


def _own_error(error: BaseException) -> str | None:
    """The message of a DisclError, or of one in Ray Train's traceback; None for other errors."""
    # Ray's wrapper is an instance of the wrapped error's class, but its text is a traceback
    within = getattr(error, "cause", None)
    if isinstance(within, DisclError):
        return str(within)
    if isinstance(error, DisclError):
        return str(error)
    lines = str(error).splitlines()
    named = [line for line in lines if line.startswith("discl_ray.errors.")]
    if not named:
        return None
    _, _, message = named[-1].partition(": ")
    return message
