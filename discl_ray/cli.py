"""The command line: `discl-ray COMMAND --config FILE key=value`, errors as one report, signals,
exit codes.

Exit codes: 0 done, 1 failed underway (what is committed stays), 2 refused before any work, 130
ended by Ctrl-C, 143 by SIGTERM, 129 by a terminal that was closed, 141 by a reader of the output
that went away.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import importlib.metadata
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from discl_ray.commands import COMMANDS, Command
from discl_ray.errors import DisclError, StorageError, reported
from discl_ray.process import logs, stopping
from discl_ray.process.calls import CONSOLE, DEFAULT, DEFAULTS, Call, whole

log = logging.getLogger(__name__)


def main(words: Sequence[str] | None = None) -> None:
    """`discl-ray` with these words (default: the process's); ends the process."""
    given = list(sys.argv[1:] if words is None else words)
    name, *rest = given or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        raise SystemExit(0)
    if name == "--version":
        print(importlib.metadata.version("discl-ray"))
        raise SystemExit(0)
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        _say(f"error: {name}: no such command; {hint}there are {', '.join(COMMANDS)}")
        raise SystemExit(2)
    run_command(name, rest)


def overview() -> str:
    """What `discl-ray --help` prints."""
    lines = [f"  {command.name:<10} {command.meaning}" for command in COMMANDS.values()]
    return "\n".join(
        [
            f"{CONSOLE} COMMAND [--config FILE ...] [key=value ...]",
            "",
            *lines,
            "",
            f"{CONSOLE} COMMAND --help lists every key; FILE is a YAML file, or a preset such as",
            "digits_lt (the default). Several files are laid one over the other.",
        ]
    )


class _Parser(argparse.ArgumentParser):
    """Puts the list of keys below the help; it is made only when it is asked for."""

    def format_help(self) -> str:
        from discl_ray.keys import as_text

        return f"{super().format_help()}\n{as_text()}\n"


def parser_of(command: Command) -> argparse.ArgumentParser:
    """The command line of a command."""
    shape = argparse.RawDescriptionHelpFormatter
    call = Call.this()
    prog = call.script or f"{CONSOLE} {command.name}"
    prog = " ".join([*call.entry, command.name]) if call.entry else prog
    parser = _Parser(prog=prog, description=command.page, formatter_class=shape)
    default = " ".join(DEFAULTS.get(command.name, (DEFAULT,)))
    parser.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help=f"YAML file or preset; several are laid one over the other (default: {default})",
    )
    for option in command.options:
        kind = int if isinstance(option.default, int) else str
        meaning = option.meaning
        if option.default:
            meaning += f" (default: {option.default})"
        parser.add_argument(option.flag, type=kind, default=option.default, help=meaning)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="overrides, e.g. plan.replicas=4"
    )
    return parser


def run_command(name: str, words: Sequence[str] | None = None) -> None:
    """Runs a command with these words (default: the process's); ends the process with its exit
    code."""
    command = COMMANDS[name]
    stopping.listen()
    finished(lambda: _run(command, sys.argv[1:] if words is None else words))


def _run(command: Command, words: Sequence[str]) -> None:
    """Parses the command line, loads the configuration and runs the command's job."""
    prepare_terminal()
    logs.show()
    asked = vars(parser_of(command).parse_intermixed_args(words))  # in any order
    files = asked.pop("config") or DEFAULTS.get(command.name, (DEFAULT,))
    overrides = asked.pop("overrides")
    if command.name == "doctor":
        module = importlib.import_module(command.module)
        raise SystemExit(2 if module.examine_all(files, overrides) else 0)
    from discl_ray.cluster.session import check_versions
    from discl_ray.cluster.start import set_environment
    from discl_ray.config import load_config

    set_environment()
    check_versions()
    config = load_config(files, overrides)
    from discl_ray.cluster.checks import FUNCTIONS, PLACES, refuse, settled

    if command.name != "verify":  # it compares bytes, and runs where the functions need not be
        refuse(config, FUNCTIONS)
    refuse(config, PLACES)
    config, changed = settled(config)
    for sentence in changed:
        log.info("%s", sentence)
    importlib.import_module(command.module).job(config, **asked)


def prepare_terminal() -> None:
    """What a terminal cannot show is replaced, here and in later processes, whose output goes to
    files."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    os.environ["PYTHONIOENCODING"] = "utf-8"


def finished(run: Callable[[], None]) -> None:
    """Runs, and ends the process with its exit code; an error that a user can mend becomes one
    line."""
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
