"""Is this machine fit for the job? One check after the other, each with a finding, or a problem and its remedy.

Nothing is started, written or downloaded. Imports stand inside the checks: what cannot be imported is a finding too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from discl_ray.config import Config

LIBRARIES = ("torch", "torchvision", "diffusers", "open_clip", "ray")
"""What the jobs import late, and what most often fails to."""

MINIMUM = (3, 11)
"""Oldest Python."""

DISK_GB = 1.0
"""Less free disk than this under the run root is a problem."""


class Problem(Exception):
    """A finding that has to be mended; the message says how."""


@dataclass
class Subject:
    """What is looked at: this machine, and a configuration for it."""

    paths: Sequence[str]
    overrides: Sequence[str] = ()

    @cached_property
    def config(self) -> Config:
        """The configuration.

        Raises ConfigError if it is not valid.
        """
        from discl_ray.config import load_config

        return load_config(self.paths, self.overrides)


def check_python(_: Subject) -> str:
    """The interpreter's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < MINIMUM:
        raise Problem(f"{version}; 3.11 or newer is needed: remove .venv, then make doctor PYTHON=python3.11")
    return version


def check_pair(_: Subject) -> str:
    """Whether torch and torchvision belong together."""
    from discl_ray.runtime import check_versions

    check_versions()
    return f"torch {importlib.metadata.version('torch')} with torchvision {importlib.metadata.version('torchvision')}"


def check_packages(_: Subject) -> str:
    """Every requirement of this package against what is installed."""
    from packaging.requirements import Requirement

    wrong: list[str] = []
    shown: list[str] = []
    for requirement in map(Requirement, importlib.metadata.requires("discl-ray") or ()):
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
        if requirement.name in ("ray", "diffusers", "transformers", "open_clip_torch", "pyarrow"):
            shown.append(f"{requirement.name} {version}")
    if wrong:
        raise Problem(f"{'; '.join(wrong)}: pip install -c constraints.txt -e .")
    return ", ".join(shown)


def check_imports(_: Subject) -> str:
    """Whether the large libraries can be imported."""
    broken: list[str] = []
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken binary raises anything
            broken.append(f"{name} ({' '.join(str(error).split())[:120]})")
    if broken:
        raise Problem(f"cannot be imported: {'; '.join(broken)}; remove .venv and run make doctor")
    return ", ".join(LIBRARIES)


def check_config(subject: Subject) -> str:
    """Whether the configuration is valid."""
    return f"{' + '.join(subject.paths)}, run.name = {subject.config.run.name}"


def check_generator(subject: Subject) -> str:
    """Whether the diffusion model is here and complete."""
    from discl_ray.generate.folder import check_generator

    check_generator(subject.config.generator, subject.config.plan.num_steps)
    return subject.config.generator.model


def check_scorer(subject: Subject) -> str:
    """Whether the CLIP model is here."""
    from discl_ray.score.folder import open_clip_name

    name = open_clip_name(subject.config.scorer)
    return subject.config.scorer.model + ("" if name.startswith("local-dir:") else ", which open_clip looks for when it starts")


def check_root(subject: Subject) -> str:
    """Whether runs can be written, and how much room there is."""
    root = subject.config.run.root
    if "://" in root:
        return f"{root}: not a local folder, not looked at"
    target = Path(root).absolute()
    folder = next(p for p in (target, *target.parents) if p.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise Problem(f"{folder}: cannot be written; set run.root to a folder you may write")
    free = shutil.disk_usage(folder).free / 1e9
    if free < DISK_GB:
        raise Problem(f"{folder}: {free:.1f} GB free, at least {DISK_GB:g} needed; make room or set run.root")
    return f"{root}: writable, {free:.0f} GB free"


def check_shared_memory(_: Subject) -> str:
    """The size of /dev/shm, where Ray keeps what it passes between processes."""
    if not os.path.isdir("/dev/shm"):
        return "no /dev/shm on this system; Ray uses its temporary folder"
    size = shutil.disk_usage("/dev/shm").total / 1e9
    if size < 1:
        return f"{size:.2f} GB: little, Ray falls back to its temporary folder, which is slower; in Docker: --shm-size=2g"
    return f"{size:.0f} GB"


def check_processors(subject: Subject) -> str:
    """CPU cores and GPUs, against what the configuration asks for."""
    import torch

    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    config = subject.config
    wanted = [k for k, v in (("generator", config.generator.num_gpus), ("scorer", config.scorer.num_gpus)) if v]
    asking = [f"{name}.num_gpus=0" for name in wanted] + ["train.use_gpu=false"] * config.train.use_gpu
    if asking and not gpus and "RAY_ADDRESS" not in os.environ:
        raise Problem(f"a GPU is asked for and none is here; join a cluster that has one, or set {' '.join(asking)}")
    return f"{cores} CPU cores, {', '.join(gpus) or 'no GPU'}"


Check = Callable[[Subject], str]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("Python", check_python),
    ("torch pair", check_pair),
    ("packages", check_packages),
    ("imports", check_imports),
    ("configuration", check_config),
    ("generator", check_generator),
    ("scorer", check_scorer),
    ("run root", check_root),
    ("shared memory", check_shared_memory),
    ("processors", check_processors),
)
"""In the order in which a later one needs an earlier one."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check came to."""

    name: str
    ok: bool
    text: str

    def __str__(self) -> str:
        text = self.text.replace("\n", f"\n{'':25}")
        return f"{self.name:<14} {'ok' if self.ok else 'PROBLEM':<8}  {text}"


def examine(
    paths: Sequence[str], overrides: Sequence[str] = (), checks: Sequence[tuple[str, Check]] = CHECKS
) -> Iterator[Finding]:
    """Every check's finding, in order; a check that fails does not keep the next one from running."""
    subject = Subject(paths, overrides)
    reported: set[str] = set()
    for name, check in checks:
        try:
            ok, text = True, check(subject)
        except Exception as error:  # whatever is wrong with a machine is to be reported, not raised
            from discl_ray.errors import DisclError

            known = isinstance(error, Problem | DisclError)
            ok, text = False, str(error) if known else f"{type(error).__name__}: {error}"
            text = "not looked at: see above" if text in reported else text
            reported.add(text)
        yield Finding(name=name, ok=ok, text=text)
