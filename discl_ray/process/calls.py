"""The command line of this process, and of the jobs that follow it, quoted to be pasted.

A job is called as `make generate CONF=... ARGS=...` or as `python jobs/generate.py --config ...`;
the commands it prints have the same form.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from discl_ray.process.masking import masked

JOBS = ("identify", "preview", "generate", "verify", "train", "compare", "tune", "doctor")

CONSOLE = "discl-ray"
"""The console command that the package installs."""

BY_MAKE = "DISCL_RAY_BY_MAKE"
"""Set by the Makefile for the jobs it runs: the targets that make was called with."""

DEFAULT = "conf/digits_lt.yaml"
"""The configuration of a job that is called without one."""

AGAIN = "run the command again"
"""Placeholder of this job's own command in messages of workers, which do not know it (`whole`)."""

DEFAULTS = {"tune": (DEFAULT, "conf/tune_digits_lt.yaml")}
"""Default configurations of the jobs that have others."""


def in_submitted_job() -> bool:
    """Whether this process is the driver of a `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


@dataclass(frozen=True, kw_only=True)
class Call:
    """How a job was called."""

    script: str
    """Its path as typed; empty if this process is no job."""
    files: tuple[str, ...]
    """The configuration's."""
    rest: tuple[str, ...]
    """Overrides and options, in order."""
    python: str = "python"
    entry: tuple[str, ...] = ()
    """The words before the job's name, if the console command was called."""
    name: str = ""
    """The job's name behind them."""
    targets: tuple[str, ...] = ()
    """Targets that make was called with; empty if the job was not called by make."""
    submitted: bool = False

    @classmethod
    def of(
        cls, argv: Sequence[str], environment: Mapping[str, str], python: str = "python"
    ) -> Call:
        """The call with these words."""
        script = argv[0] if argv else ""
        entry = _entry(script, _near(python))
        name = argv[1] if entry and len(argv) > 1 else ""
        files, rest = split_words(argv[2:] if entry else argv[1:])
        is_job = Path(script).parent.name == "jobs" and Path(script).suffix == ".py"
        return cls(
            script=script if is_job or name in JOBS else "",
            files=files,
            rest=rest,
            python=_near(python),
            entry=entry,
            name=name,
            targets=tuple(environment.get(BY_MAKE, "").split()),
            submitted="RAY_JOB_CONFIG_JSON_ENV_VAR" in environment,
        )

    @classmethod
    def this(cls) -> Call:
        """This process's call."""
        return cls.of(sys.argv, os.environ, sys.orig_argv[0] if sys.orig_argv else sys.executable)

    @property
    def job(self) -> str:
        """The job's name; empty if this process is no job."""
        return self.name or Path(self.script).stem if self.script else ""

    def command(
        self,
        job: str = "",
        *,
        files: Sequence[str] | None = None,
        rest: Sequence[str] | None = None,
    ) -> str:
        """The command for a job, in the form of this call; for this job again if none is named.

        `files` and `rest` replace this call's. Secrets are masked, as commands are printed.
        """
        files = self.files if files is None else tuple(files)
        words = self.rest if rest is None else tuple(rest)
        if job and job != self.job:
            words = _overrides(words)  # options like --dry-run are this job's own
        words = tuple(map(masked, words))
        if self.targets or not self.script:
            targets = (job,) if job else self.targets or (self.job,)
            configured = _variable("CONF", _files_of(job or self.job, files))
            return " ".join(["make", *targets, *configured, *_variable("ARGS", words)])
        return self._by_shell(job or self.job, files, words)

    def _by_shell(self, job: str, files: Sequence[str], words: Sequence[str]) -> str:
        script = Path(self.script).with_name(f"{job}.py")
        parts = [*self.entry, job] if self.entry else [self.python, str(script)]
        for file in files:
            parts += ["--config", file]
        command = shlex.join([*parts, *words])
        return f"ray job submit --working-dir . -- {command}" if self.submitted else command


def _overrides(words: Sequence[str]) -> tuple[str, ...]:
    """The words that are `key=value`."""
    return tuple(word for word in words if "=" in word and not word.startswith("--"))


def next_command(job: str) -> str:
    """The command of the next job for the same configuration; plain `make` if this is no job."""
    call = Call.this()
    return call.command(job) if call.script else f"make {job}"


def advice(job: str) -> str:
    """ "run `...`" with the job's whole command, or with a placeholder if this is no job."""
    return f"run `{next_command(job)}`" if Call.this().script else _unknown(job)


def again() -> str:
    """ "go on with: ..." and this process's own command; a placeholder if this is no job."""
    call = Call.this()
    return f"go on with: {call.command()}" if call.script else AGAIN


def whole(text: str) -> str:
    """A message, maybe of a worker, with whole commands in place of placeholders."""
    call = Call.this()
    if not call.script:
        return text
    for job in JOBS:
        text = text.replace(_unknown(job), f"run `{call.command(job)}`")
    return text.replace(AGAIN, f"run `{call.command()}` again")


def _unknown(job: str) -> str:
    """Placeholder of a job's command."""
    return f"run `make {job}` with the same CONF and ARGS"


def split_words(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files that `--config` names, and all other words."""
    files: list[str] = []
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == "--config":
            files.append(next(remaining, ""))
        elif word.startswith("--config="):
            files.append(word.removeprefix("--config="))
        else:
            rest.append(word)
    return tuple(files), tuple(rest)


def _entry(script: str, python: str) -> tuple[str, ...]:
    """How the console command is called, by its name if PATH leads to it; empty if it was not."""
    if Path(script).name == CONSOLE:
        return (CONSOLE,) if shutil.which(CONSOLE) == script else (_near(script),)
    if Path(script).name == "__main__.py" and Path(script).parent.name == "discl_ray":
        return (python, "-m", "discl_ray")
    return ()


def _files_of(job: str, files: tuple[str, ...]) -> tuple[str, ...]:
    """The value of CONF: empty for the job's default."""
    usual = DEFAULTS.get(job, (DEFAULT,))
    return () if (files or (DEFAULT,)) == usual else files or (DEFAULT,)


def _variable(name: str, words: Sequence[str]) -> list[str]:
    """A variable on make's command line.

    Quoted for three readers: the user's shell, make (which doubles `$`) and the recipe's shell.
    """
    if not words:
        return []
    text = shlex.join(words).replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]*", text):
        return [f"{name}={text}"]
    if not set(text) & set('"$`\\!'):
        return [f'{name}="{text}"']
    return [f"{name}={shlex.quote(text)}"]


def _near(path: str) -> str:
    """A path, relative if it is below the working directory."""
    here = f"{os.getcwd()}{os.sep}"
    return path.removeprefix(here)
