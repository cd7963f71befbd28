"""Progress reporting: a line that is rewritten on a terminal, or log lines at intervals."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import ClassVar

log = logging.getLogger(__name__)

INTERVAL_S = 10.0
"""Seconds between two lines at the beginning of a job."""
INTERVAL_SHARE = 0.05
"""Share of the time so far that passes between two lines of a long job: 3 minutes after an hour."""
WIDTH = 100
"""Columns of the line on a terminal; a shorter line is padded, to cover the one before."""


class Progress:
    """Counts what is done out of a total, and shows the count, the rate and the time left."""

    open: ClassVar[Progress | None] = None
    """Whose line on the terminal is not ended yet."""

    def __init__(
        self,
        total: int,
        what: str,
        *,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`live` says whether the line can be rewritten; by default it can on a terminal."""
        self.total = total
        self.what = what
        self.done = 0
        self.live = sys.stdout.isatty() if live is None else live
        self._clock = clock
        self._start = clock()
        self._next_line = self._start

    def advance(self, count: int, note: str = "") -> None:
        """Counts `count` more; `note` is shown at the end of the line."""
        self.done += count
        now = self._clock()
        line = self._line(now - self._start, note)
        if self.live:
            self._rewrite(line)
        elif now >= self._next_line or self.done >= self.total:
            log.info("%s", line)
            self._next_line = now + max(INTERVAL_S, INTERVAL_SHARE * (now - self._start))

    def close(self) -> None:
        """Ends the line on a terminal."""
        if Progress.open is self:
            end_line()

    def _line(self, seconds: float, note: str) -> str:
        rate = self.done / max(seconds, 1e-9)
        left = seconds / max(self.done, 1) * (self.total - self.done)
        counted = f"{self.done}/{self.total} {self.what}"
        return f"{counted} · {rate:.1f}/s · about {left:.0f} s left {note}".rstrip()

    def _rewrite(self, line: str) -> None:
        sys.stdout.write(f"\r  {line:<{WIDTH - 2}}")
        sys.stdout.flush()
        Progress.open = self


def end_line() -> None:
    """Ends the line of progress that is open on the terminal, if any."""
    if Progress.open is not None:
        sys.stdout.write("\n")
        sys.stdout.flush()
        Progress.open = None
