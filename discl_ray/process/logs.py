"""What the package says while it works: it logs, and a job shows that as lines on its standard output."""

from __future__ import annotations

import logging

PACKAGE = "discl_ray"


class Lines(logging.Handler):
    """A line a record, indented below the job's own; a warning says that it is one.

    An output that cannot be written raises OSError, which ends the job: it is not swallowed, as
    `logging` would.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        warning = "warning: " if record.levelno >= logging.WARNING else ""
        print(f"  {warning}{self.format(record)}", flush=True)


def show() -> None:
    """Shows what the package logs, from `INFO` up; a second call changes nothing."""
    package = logging.getLogger(PACKAGE)
    package.setLevel(logging.INFO)
    package.propagate = False  # a library that configures the root logger would show all twice
    if not any(isinstance(handler, Lines) for handler in package.handlers):
        package.addHandler(Lines())
