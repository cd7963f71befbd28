"""Shows what the package logs as lines on standard output; jobs call `show` when they start."""

from __future__ import annotations

import logging

from discl_ray.process.progress import end_line

PACKAGE = "discl_ray"


class Lines(logging.Handler):
    """Prints a line per record, indented below the job's own, with "warning: " before warnings.

    Raises OSError if the output cannot be written, which ends the job; `logging` would print a
    traceback and go on.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        warning = "warning: " if record.levelno >= logging.WARNING else ""
        end_line()  # the record would be appended to a progress bar
        print(f"  {warning}{self.format(record)}", flush=True)


def show() -> None:
    """Shows what the package logs, from `INFO` up; a second call changes nothing."""
    package = logging.getLogger(PACKAGE)
    package.setLevel(logging.INFO)
    package.propagate = False  # a library that configures the root logger would show all twice
    if not any(isinstance(handler, Lines) for handler in package.handlers):
        package.addHandler(Lines())
