"""What every job's command line shares: `--config`, `key=value`, errors as one report, signals, exit codes.

Exit codes: 0 done, 1 failed underway (what is committed stays), 2 refused before any work, 130 ended by Ctrl-C, 143 by SIGTERM,
129 by a terminal that was closed, 141 by a reader of the output that went away.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from discl_ray.cluster.session import check_versions
from discl_ray.cluster.start import set_environment
from discl_ray.config import Config, load_config
from discl_ray.errors import DisclError, StorageError, reported
from discl_ray.process import logs, stopping
from discl_ray.process.calls import DEFAULT, Call, whole

log = logging.getLogger(__name__)


def prepare_terminal() -> None:
    """What a terminal cannot show is replaced, here and in the processes to come, whose output goes to files."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    os.environ["PYTHONIOENCODING"] = "utf-8"


def arguments(description: str | None, words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's `config` (files) and `overrides`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    help_ = f"YAML file; several are laid one over the other (default: {DEFAULT})"
    parser.add_argument("--config", action="append", metavar="FILE", help=help_)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="overrides, e.g. plan.replicas=4"
    )
    return parser.parse_intermixed_args(words)  # options and overrides in any order


def run_job(
    description: str | None, job: Callable[[Config], None], words: Sequence[str] | None = None
) -> None:
    """Parses the command line, loads the configuration and runs a job; ends the process with its exit code.

    `words`: the command line without what the job itself has read.
    """

    def run() -> None:
        prepare_terminal()
        logs.show()
        asked = arguments(description, words)
        set_environment()
        check_versions()
        config = load_config(asked.config or DEFAULT, asked.overrides)
        from discl_ray.cluster.checks import PLACES, refuse, settled

        refuse(config, PLACES)
        config, changed = settled(config)
        for sentence in changed:
            log.info("%s", sentence)
        job(config)

    stopping.listen()
    finished(run)


def finished(run: Callable[[], None]) -> None:
    """Runs to the end, and ends the process with its exit code and one line, whatever happened that a user can mend."""
    try:
        _written(run)
    except KeyboardInterrupt:  # from a library that for a while has a handler of its own
        stopping.end(signal.SIGINT)
    except SystemExit:
        if not stopping.told():
            raise
    except Exception as error:
        if not stopping.told():
            _fail(error)
    if stopping.told():
        stopping.leave(128 + stopping.told())


def _written(run: Callable[[], None]) -> None:
    """Runs, and raises OSError if not all that was printed could be written."""
    try:
        run()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _fail(error: Exception) -> None:
    """Ends the process with one line on what went wrong; raises what is a fault of the program."""
    go_on = f"go on with: {Call.this().command()}"
    lost = None if isinstance(error, DisclError) else _output_error(error)
    if isinstance(lost, BrokenPipeError):
        _say(f"nobody reads this output any more; {go_on}")
        stopping.leave(141)
    report = (
        reported(error)
        if lost is None
        else StorageError(f"standard output: cannot be written ({lost.strerror})")
    )
    if report is None:
        raise error
    _say(
        f"error: {whole(str(report))}"
        + (f"; then {go_on}" if isinstance(report, StorageError) else "")
    )
    stopping.leave(report.exit_code)


def _output_error(error: Exception) -> OSError | None:
    """Why nothing can be printed any more, found out by an empty line; None if it can be."""
    if isinstance(error, BrokenPipeError):
        return error
    try:
        sys.stdout.flush()
        os.write(1, b"\n")
    except OSError as again:
        return again
    return None


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads stderr either
        print(line, file=sys.stderr, flush=True)
