"""The commands: one file each, and here what the command line has to know before it imports one."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Option(NamedTuple):
    """An option of one command, besides `--config`."""

    flag: str
    default: int | str | None
    meaning: str


class Command(NamedTuple):
    """A command of `discl-ray`, which is also a script in `jobs/` and a target of make."""

    name: str
    meaning: str
    options: tuple[Option, ...] = ()

    @property
    def module(self) -> str:
        """The module whose `job` it runs."""
        return f"{__name__}.{self.name}"

    @property
    def page(self) -> str:
        """What it does and how it is called: its module's docstring, read without an import."""
        spec = find_spec(self.module)
        assert spec is not None
        assert spec.origin is not None
        return ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8"))) or ""


COMPARE_OPTIONS = (
    Option("--seeds", 10, "how many seeds, each with a spectrum of its own"),
    Option("--table", None, "long_tail, low_quality, short or gap"),
    Option("--tag", "", "added to the names of the files it leaves"),
)

COMMANDS = {
    command.name: command
    for command in (
        Command("doctor", "is this machine fit for the job? each problem with its remedy"),
        Command("identify", "which images are hard: counts by class, a picture of the hardest"),
        Command("preview", "a few images first: what filters accept, hours, memory, disk"),
        Command("generate", "make the spectrum: images at every λ, scored, and a contact sheet"),
        Command("verify", "read the spectrum's bytes again, and find what is damaged"),
        Command("train", "train on the spectrum, with and without the curriculum"),
        Command("compare", "strategies and losses over several seeds, in a table", COMPARE_OPTIONS),
        Command("tune", "sweep schedules under Ray Tune; best.yaml holds the best"),
    )
}
"""In the order of their use."""
