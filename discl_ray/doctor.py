"""Checks whether this machine and data set can be used for a job.

Each check gives a finding, or a problem and its remedy. Nothing is started, written or downloaded.
Imports are inside the checks: a failed import is a finding too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from discl_ray.process.masking import masked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from discl_ray.config import Config
    from discl_ray.data.listing import Listing

Check = Callable[["Subject"], str]

LIBRARIES = ("torch", "torchvision", "diffusers", "open_clip", "ray")
"""Libraries that the jobs import late, and that most often fail to import."""

MINIMUM = (3, 11)
"""Oldest Python."""

DISK_GB = 1.0
"""Free disk under the run root that a job needs at least."""

CLASSES, IMAGES = 200, 3
"""Classes whose names are tried on the scorer, and training images of each, at most."""

SECONDS = 30.0
"""Seconds after which no further image is tried: a large scorer on a CPU takes a second each."""

SKIPPED = "not checked: see above"

NOT_TRIED = "not tried: "
"""Begins what a check says that found nothing out."""

SHOWN = 10
"""Classes a finding names."""


class Problem(Exception):
    """A finding that has to be fixed; the message says how."""


@dataclass
class Subject:
    """What is checked: this machine with a configuration."""

    paths: Sequence[str]
    overrides: Sequence[str] = ()

    @cached_property
    def config(self) -> Config:
        """The configuration.

        Raises ConfigError if it is not valid.
        """
        from discl_ray.cluster.checks import settled
        from discl_ray.config import load_config

        return settled(load_config(self.paths, self.overrides))[0]

    @cached_property
    def listing(self) -> Listing:
        """The images of the configured data set; none is opened.

        Raises ConfigError, or DataError if they cannot be listed.
        """
        from discl_ray.data import list_dataset

        return list_dataset(self.config.data, self.config.seed)

    @cached_property
    def class_names(self) -> dict[str, str]:
        """Class key -> name, in the order of the labels.

        Raises DataError if the user's names do not match the classes.
        """
        from discl_ray.data.names import class_names

        names = class_names(self.config.data, self.listing)
        return dict(zip(self.listing.keys, names, strict=True))


def check_python(_: Subject) -> str:
    """The interpreter's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < MINIMUM:
        raise Problem(
            f"{version}; 3.11 or newer is needed: remove .venv, then make doctor PYTHON=python3.11"
        )
    return version


def check_pair(_: Subject) -> str:
    """Whether torch and torchvision belong together."""
    from discl_ray.cluster.session import check_versions

    check_versions()
    torch = importlib.metadata.version("torch")
    vision = importlib.metadata.version("torchvision")
    return f"torch {torch} with torchvision {vision}"


def check_packages(_: Subject) -> str:
    """Whether every requirement of this package is installed."""
    from packaging.requirements import Requirement

    wrong: list[str] = []
    shown: list[str] = []
    for requirement in map(Requirement, importlib.metadata.requires("discl-ray") or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue  # of an extra, which nobody has to install
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
            reason = " ".join(str(error).split())
            broken.append(f"{name} ({reason[:120]})")
    if broken:
        raise Problem(f"cannot be imported: {'; '.join(broken)}; remove .venv and run make doctor")
    return ", ".join(LIBRARIES)


def check_config(subject: Subject) -> str:
    """Whether the configuration is valid."""
    return f"{' + '.join(subject.paths)}, run.name = {subject.config.run.name}"


def of_job(check: Callable[[Config], str]) -> Check:
    """A check that the jobs run themselves, as one of the doctor's."""
    return lambda subject: check(subject.config)


def check_data(subject: Subject) -> str:
    """Whether the data set can be listed, and what is in it. No image is opened."""
    config = subject.config.data
    splits = subject.listing.table["split"].to_pylist()
    counts = Counter(splits)
    classes = len(subject.class_names)
    if classes < 2:
        raise Problem(
            f"data.name = {config.name}: {classes} class; at least two are needed to tell apart"
        )
    if not counts["train"] + counts[None]:
        raise Problem(
            f"data.name = {config.name}: no training image among {len(splits)}; check its splits"
        )
    shown: list[str] = []
    for split, what in (
        ("train", "train"),
        ("val", "val"),
        ("test", "test"),
        (None, "to be split"),
    ):
        count = counts[split]
        if count:
            shown.append(f"{count:,} {what}")
    rows = ", ".join(shown)
    lines = [f"{config.name}: {rows}; {classes:,} classes"]
    if subject.listing.in_files:
        lines.append("listed, not opened: identify and generate find out whether all can be read")
    return "\n".join([*lines, *subject.listing.notes])


def check_class_names(subject: Subject) -> str:
    """Whether the scorer knows the classes by their names.

    Real training images are ranked among the prompts of all classes.
    """
    import torch

    from discl_ray.errors import ModelError
    from discl_ray.plan.prompts import load_prompts
    from discl_ray.score.class_audit import class_ranks
    from discl_ray.score.clip import ClipScorer
    from discl_ray.score.model_folder import open_clip_name

    config = subject.config.scorer
    prompts = load_prompts(subject.config.prompts)
    prompts.check(list(subject.class_names.values()))
    local = open_clip_name(config).startswith("local-dir:")
    try:
        scorer = ClipScorer(config, "cuda" if torch.cuda.is_available() else "cpu")
    except ModelError:
        if local:
            raise
        return f"{NOT_TRIED}{config.model} is not on this machine yet"
    rows, names = some_training_rows(subject)
    unread: list[str] = []
    images = _decoded(subject, rows, names, unread)
    class_prompts = {name: prompts.filter(name) for name in names.values()}
    ranks = class_ranks(images, class_prompts, scorer)
    if not ranks:
        raise Problem(f"none of {len(rows)} training images can be read; {unread[0]}")
    text = rank_words(subject, ranks, len(names))
    if unread:
        text += f"\n{len(unread)} of those tried cannot be read: {unread[0]}"
    return text


def rank_words(subject: Subject, ranks: Mapping[str, float], count: int) -> str:
    """What ranks among `count` prompts mean.

    Raises Problem if most classes are unknown, unless this is a plumbing test.
    """
    from discl_ray.data.config import FilesConfig
    from discl_ray.score.class_audit import unknown_classes

    data = subject.config.data
    model = subject.config.scorer.model
    tried = (
        f"tried on {len(ranks):,} of {len(subject.class_names):,} classes, "
        f"up to {IMAGES} training images of each"
    )
    unknown = unknown_classes(ranks, count)
    if not unknown:
        return f"the scorer knows them ({tried})"
    most_unknown = 2 * len(unknown) > len(ranks)
    if not isinstance(data, FilesConfig) and not most_unknown:
        known = len(ranks) - len(unknown)
        return f"the data set's own; the scorer knows {known} at once ({tried})"
    text = (
        f"the scorer hardly knows {len(unknown)}, so the filter will reject much of them ({tried})"
    )
    if isinstance(data, FilesConfig):
        where = data.names or "a file, data.names=FILE.csv"
        text += f": set a name in {where}, or another scorer.model"
        if model == "embedded":
            text += " (embedded knows only digits)"
    lines = [text]
    worst = list(unknown.items())[:SHOWN]
    for name, rank in worst:
        lines.append(f"class '{name}': rank {rank:g} of {count}")
    if len(unknown) > SHOWN:
        lines.append(f"and {len(unknown) - SHOWN} more")
    text = "\n".join(lines)
    if most_unknown and not subject.config.plumbing_test:
        raise Problem(text)
    return text


def some_training_rows(subject: Subject) -> tuple[list[int], dict[str, str]]:
    """Training rows of the listing to try, by hash, and the names of their classes by key.

    Up to IMAGES of each of up to CLASSES classes.
    """
    import numpy as np

    from discl_ray.core.ids import stable_id
    from discl_ray.data.splits import TRAIN

    table = subject.listing.table
    ids = table["sample_id"].to_pylist()
    keys = table["class_key"].to_pylist()
    is_train = _splits(subject) == TRAIN
    members: dict[str, list[int]] = {}
    for row in np.flatnonzero(is_train).tolist():
        of_class = members.setdefault(keys[row], [])
        of_class.append(row)
    classes = sorted(members, key=stable_id)
    chosen = set(classes[:CLASSES])
    rows: list[int] = []
    for key in chosen:
        by_hash = sorted(members[key], key=lambda row: stable_id(ids[row]))
        rows += by_hash[:IMAGES]
    names = {key: name for key, name in subject.class_names.items() if key in chosen}
    return sorted(rows), names


def _splits(subject: Subject) -> NDArray[np.int32]:
    """The split of every row of the listing as its place in SPLITS, shape (rows,).

    As far as it is decided without an image's bytes: what will be val or test is not to be tried.
    """
    import numpy as np

    from discl_ray.data.config import FilesConfig
    from discl_ray.data.splits import codes_of, fill_splits, split_codes

    data = subject.config.data
    table = subject.listing.table
    split = split_codes(table["split"])
    if not isinstance(data, FilesConfig):
        return split
    label = {key: number for number, key in enumerate(subject.class_names)}
    labels = [label[key] for key in table["class_key"].to_pylist()]
    return fill_splits(
        split,
        np.array(labels, np.int64),
        codes_of(table["group"]),
        table["sample_id"],
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=subject.config.seed,
    )


def _decoded(
    subject: Subject, rows: Sequence[int], names: Mapping[str, str], unread: list[str]
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """(class name, pixels) of rows of the listing, for up to SECONDS.

    Appends what cannot be read to `unread`, with the reason.
    """
    from discl_ray.core.images import decode_image
    from discl_ray.data.wording import shown
    from discl_ray.errors import ImageError

    listing = subject.listing
    table = listing.table.take(rows)
    end = time.monotonic() + SECONDS
    ids = table["sample_id"].to_pylist()
    keys = table["class_key"].to_pylist()
    contents = listing.read(listing.root, table)
    for sample_id, key, data in zip(ids, keys, contents, strict=True):
        try:
            if isinstance(data, ImageError):
                raise data
            yield names[key], decode_image(data)
        except ImageError as error:
            unread.append(f"{shown(sample_id)}: {error}")
            continue
        if time.monotonic() > end:
            return


def check_spectrum(subject: Subject) -> str:
    """Whether the spectrum at `spectrum.path`, if it is set, can be trained on."""
    path = subject.config.spectrum.path
    if not path:
        return "the run's own"
    from discl_ray.spectrum.open import Spectrum

    spectrum = Spectrum.open(path)
    files = len(spectrum.files)  # compares the sizes of all
    noun = "file" if files == 1 else "files"
    return f"{path}: complete, {len(spectrum.classes):,} classes, {files:,} {noun}"


def check_disk(subject: Subject) -> str:
    """How much disk space there is for runs."""
    root = subject.config.run.root
    if "://" in root:
        return f"{root}: not a local folder, not checked"
    target = Path(root).absolute()
    folders = (target, *target.parents)
    folder = next(folder for folder in folders if folder.exists())
    free = shutil.disk_usage(folder).free / 1e9
    if free < DISK_GB:
        raise Problem(
            f"{folder}: {free:.1f} GB free, at least {DISK_GB:g} needed; make room or set run.root"
        )
    return f"{free:.0f} GB free under {folder}"


def check_shared_memory(_: Subject) -> str:
    """The size of /dev/shm, where Ray keeps the objects that it passes between processes."""
    if not os.path.isdir("/dev/shm"):
        return "no /dev/shm on this system; Ray uses its temporary folder"
    size = shutil.disk_usage("/dev/shm").total / 1e9
    if size < 1:
        return (
            f"{size:.2f} GB: little, Ray falls back to its temporary folder, which is slower; "
            "in Docker: --shm-size=2g"
        )
    return f"{size:.0f} GB"


def check_processors(_: Subject) -> str:
    """CPU cores and GPUs of this machine."""
    import torch

    cores = os.cpu_count()
    if sys.platform == "linux":  # a container may be given fewer cores than there are
        cores = len(os.sched_getaffinity(0))
    devices = range(torch.cuda.device_count())
    gpus = [torch.cuda.get_device_name(device) for device in devices]
    listed = ", ".join(gpus) or "no GPU"
    return f"{cores} CPU cores, {listed}"


def check_memory(subject: Subject) -> str:
    """Whether the generator's weights fit into the memory of the cluster's GPUs."""
    from discl_ray.cluster.checks import cards_of
    from discl_ray.synthesize.checks import weights_gb

    config = subject.config
    need = weights_gb(config)
    cards = cards_of(config)
    small = [f"{name} ({size:g} GB)" for name, size in cards.items() if size < need]
    model = (
        f"{config.generator.model}: {need:.2g} GB of weights, "
        "and activations that grow with generator.micro_batch"
    )
    if small and config.generator.num_gpus:
        listed = ", ".join(small)
        raise Problem(f"{model}; more than {listed} has: use a smaller generator.model")
    sizes = [f"{name} {size:g} GB" for name, size in cards.items()]
    shown = ", ".join(sizes) or "none that is known"
    return f"{model}; GPUs: {shown}"


MACHINE: tuple[tuple[str, Check], ...] = (
    ("Python", check_python),
    ("torch pair", check_pair),
    ("packages", check_packages),
    ("imports", check_imports),
    ("configuration", check_config),
)
"""Whether anything can run at all."""

SUBJECT: tuple[tuple[str, Check], ...] = (
    ("data", check_data),
    ("class names", check_class_names),
    ("spectrum", check_spectrum),
    ("disk", check_disk),
    ("shared memory", check_shared_memory),
    ("processors", check_processors),
    ("memory", check_memory),
)
"""What no job checks before it starts."""


def every_check() -> Iterator[tuple[str, Check]]:
    """All checks, each after those it needs; the jobs' own are in the middle."""
    yield from MACHINE
    try:
        from discl_ray.cluster.checks import FUNCTIONS, PLACES
        from discl_ray.synthesize.checks import MAKING, MODELS
        from discl_ray.train.workers import TRAINING
    except ImportError:  # "packages" and "configuration" have said so
        return
    for name, check in (*FUNCTIONS, *PLACES, *MODELS, *MAKING, *TRAINING):
        yield name, of_job(check)
    yield from SUBJECT


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a check."""

    name: str
    ok: bool
    text: str

    @property
    def skipped(self) -> bool:
        """Whether nothing was found out: the check did not run because of an earlier problem,
        which was reported, or what it needs is not here.
        """
        return self.text == SKIPPED or self.text.startswith(NOT_TRIED)

    def __str__(self) -> str:
        text = self.text.replace("\n", f"\n{'':25}")
        status = "ok" if self.ok else "PROBLEM"
        if self.skipped:
            status = "–"
        return f"{self.name:<14} {status:<8}  {text}"


def examine(
    paths: Sequence[str],
    overrides: Sequence[str] = (),
    checks: Iterable[tuple[str, Check]] | None = None,
) -> Iterator[Finding]:
    """Runs every check in order and yields its finding; one that fails does not stop the others."""
    subject = Subject(paths, overrides)
    reported: set[str] = set()
    for name, check in every_check() if checks is None else checks:
        try:
            text = check(subject)
            ok = True
        except Exception as error:  # a finding, whatever it is
            text = _problem_words(error)
            ok = False
            if text in reported:
                text = SKIPPED
            reported.add(text)
        yield Finding(name=name, ok=ok, text=masked(text))


def _problem_words(error: Exception) -> str:
    """An error in words; one that nobody foresaw also by its type."""
    from discl_ray.errors import reported

    if isinstance(error, Problem):
        return str(error)
    known = reported(error)
    if known is not None:
        return str(known)
    kind = type(error).__name__
    return f"{kind}: {error}"
