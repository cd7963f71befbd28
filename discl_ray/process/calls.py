"""The command line this process was called by, and those of the jobs that follow it: whole commands, quoted to be pasted.

A job is called as `make generate CONF=... ARGS=...` or as `python jobs/generate.py --config ...`; what it prints has the same form.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from discl_ray.process.masking import masked

JOBS = ("identify", "preview", "generate", "train", "compare", "tune", "doctor")

BY_MAKE = "DISCL_RAY_BY_MAKE"
"""Set by the Makefile for the jobs it calls: the targets that make was called with."""

DEFAULT = "conf/digits_lt.yaml"
"""The configuration of a job that is not told one."""

AGAIN = "run the command again"
"""Stands for this job's own command, also in what a worker says, which does not know it; see `whole`."""

DEFAULTS = {"tune": (DEFAULT, "conf/tune_digits_lt.yaml")}
"""Where make has another."""


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
    targets: tuple[str, ...] = ()
    """What make was called with, if it was make that was called."""
    submitted: bool = False

    @classmethod
    def of(
        cls, argv: Sequence[str], environment: Mapping[str, str], python: str = "python"
    ) -> Call:
        """The call with these words."""
        files, rest = split_words(argv[1:])
        script = argv[0] if argv else ""
        is_job = Path(script).parent.name == "jobs" and Path(script).suffix == ".py"
        return cls(
            script=script if is_job else "",
            files=files,
            rest=rest,
            python=_near(python),
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
        return Path(self.script).stem if self.script else ""

    def command(
        self,
        job: str = "",
        *,
        files: Sequence[str] | None = None,
        rest: Sequence[str] | None = None,
    ) -> str:
        """The command that calls a job as this one was, or this one again; with other files and words where they are given.

        It is to be printed: what is secret in it is masked.
        """
        files = self.files if files is None else tuple(files)
        words = self.rest if rest is None else tuple(rest)
        if job and job != self.job:
            words = tuple(
                word for word in words if "=" in word and not word.startswith("--")
            )  # not this job's options
        targets = (job,) if job else self.targets or (self.job,)
        job = job or self.job
        words = tuple(map(masked, words))
        if self.targets or not self.script:
            return " ".join(
                [
                    "make",
                    *targets,
                    *_variable("CONF", _files_of(job, files)),
                    *_variable("ARGS", words),
                ]
            )
        configured = [word for file in files for word in ("--config", file)]
        plain = shlex.join(
            [self.python, str(Path(self.script).with_name(f"{job}.py")), *configured, *words]
        )
        return f"ray job submit --working-dir . -- {plain}" if self.submitted else plain


def next_command(job: str) -> str:
    """The command of the job that comes next, for the same configuration; without Python's and this process's own if it is no job."""
    call = Call.this()
    return call.command(job) if call.script else f"make {job}"


def advice(job: str) -> str:
    """ "run `...`", with the job's whole command where that is known."""
    return f"run `{next_command(job)}`" if Call.this().script else _unknown(job)


def again() -> str:
    """This process's own command, in words that end a sentence; without it if this is no job."""
    call = Call.this()
    return f"go on with: {call.command()}" if call.script else AGAIN


def whole(text: str) -> str:
    """What was said, maybe by a worker, with the whole commands of this job and of those it names."""
    call = Call.this()
    if not call.script:
        return text
    for job in JOBS:
        text = text.replace(_unknown(job), f"run `{call.command(job)}`")
    return text.replace(AGAIN, f"run `{call.command()}` again")


def _unknown(job: str) -> str:
    """Stands for the command of a job where this process is none."""
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


def _files_of(job: str, files: tuple[str, ...]) -> tuple[str, ...]:
    """What CONF has to say: nothing if it is the job's default."""
    usual = DEFAULTS.get(job, (DEFAULT,))
    return () if (files or (DEFAULT,)) == usual else files or (DEFAULT,)


def _variable(name: str, words: Sequence[str]) -> list[str]:
    """A variable on make's command line. The shell that is typed into, make and the recipe's shell each read the words once."""
    if not words:
        return []
    text = shlex.join(words).replace("$", "$$")
    plain = re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]*", text)
    if plain:
        return [f"{name}={text}"]
    return [f'{name}="{text}"' if not set(text) & set('"$`\\!') else f"{name}={shlex.quote(text)}"]


def _near(path: str) -> str:
    """A path below the working directory without what leads there."""
    here = f"{os.getcwd()}{os.sep}"
    return path.removeprefix(here)
