"""`digits_wild`: the embedded low-quality task, split by writer first and by place second.

Ten digits and `empty`, seen by cameras that do not move: dark, uneven, blurred, noisy, half
hidden. Six blocks of writers belong to the task; the seed draws which three train and which three
test, the dev block is val. Every place has a class mix of its own. Each val and test digit is seen
twice, at a place that is trained in (domain `id`) and at one that is not (`ood`), so the two are
paired. An image is a function of its scan and its place; the seed decides which of them exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from discl_ray.core.images import encode_image
from discl_ray.core.splits import SPLITS
from discl_ray.core.storage import Store
from discl_ray.data.config import DigitsWildConfig
from discl_ray.data.digits_lt import Row, by_digit, draw_blocks, draw_some
from discl_ray.data.listing import Listing, inline
from discl_ray.embedded.digits import DEV_BLOCK, NAMES, Scan, scans_of
from discl_ray.embedded.places import PLACES, place, place_look

STREAM = 0x3D
"""Separates this task's random numbers from those of other tasks with the same seed."""

MIX_STREAM = 0x313
"""The same for the class mixes of places."""

EMPTY = "empty"
CLASSES = (*NAMES, EMPTY)
"""Class keys by label."""

IMBALANCE = 6.0
"""How many times as common the commonest digit is as the rarest, over all places together."""

SKEW = 0.8
"""Dirichlet concentration of a place's mix: the smaller, the fewer kinds of digits it shows."""

EMPTIES = 0.2
"""Share of empty images: of val and test, and of the training places on average."""

EMPTIES_VARY = (0.3, 1.7)
"""A place's share of empty images, relative to EMPTIES: uniform in this range, 1 on average."""

SIZES_VARY = (0.6, 1.4)
"""A training place's number of images, relative to the configured one."""

NOTHING = 1
"""Last number of an empty image's random stream, where a digit has 0: they never share one."""

Floats = NDArray[np.float64]
"""Shares or ink, always in [0, 1]."""

Mixes = Mapping[int, Floats]
"""Number of a place -> how often each class is seen there, shape (11,), sum 1."""


@dataclass(frozen=True)
class _Subject:
    """What a camera sees: a digit, or nothing."""

    name: str
    """Begins its sample_id."""
    label: int
    """Index into CLASSES."""
    pixels: Floats | None
    """Ink in [0, 1], shape (8, 8); None for an empty image."""
    stream: tuple[int, ...]
    """Seeds its look at a place, with the place's number."""


def digits_wild(config: DigitsWildConfig, seed: int) -> Listing:
    """The task of one seed."""
    rng = np.random.default_rng([seed, STREAM])
    # the order of all draws belongs to the task: another order is another task
    train_blocks, test_blocks = draw_blocks(rng)
    mixes = _mixes(seed, rng)
    train_pool = scans_of(train_blocks)
    val_pool = scans_of((DEV_BLOCK,))
    test_pool = scans_of(test_blocks)
    rows = _train(config, train_pool, mixes, rng)
    rows += _paired("val", val_pool, mixes, rng)
    rows += _paired("test", test_pool, mixes, rng)
    nowhere = Store.at(".")  # the bytes are in the rows, so the root is never read
    return inline(rows, nowhere, CLASSES)


def _mixes(seed: int, rng: Generator) -> Mixes:
    """The class mix of every place; which digits are common everywhere is random."""
    classes = len(NAMES)
    rarest = classes - 1
    ranks = np.arange(classes) / rarest
    falling = IMBALANCE**-ranks
    common = rng.permutation(falling)
    mixes: dict[int, Floats] = {}
    for numbers in PLACES.values():
        for number in numbers:
            mixes[number] = _mix(common, seed, number)
    return mixes


def _mix(common: Floats, seed: int, number: int) -> Floats:
    """How often each class is seen at a place, shape (11,), sum 1."""
    rng = np.random.default_rng([seed, number, MIX_STREAM])
    classes = len(NAMES)
    # multiplied before it is divided: floats round, and the images depend on every bit
    concentration = SKEW * classes * common / common.sum()
    digits = rng.dirichlet(concentration)
    low, high = EMPTIES_VARY
    empty = EMPTIES * rng.uniform(low, high)
    full = 1 - empty
    return np.append(digits * full, empty)


def _train(
    config: DigitsWildConfig, pool: Sequence[Scan], mixes: Mixes, rng: Generator
) -> list[Row]:
    """Training rows: at each place as many of each class as its mix says."""
    by_class = by_digit(pool)
    low, high = SIZES_VARY
    rows: list[Row] = []
    for number in PLACES["train"]:
        factor = rng.uniform(low, high)
        total = round(config.per_place * factor)
        counts = rng.multinomial(total, mixes[number])
        subjects = _subjects(by_class, counts.tolist(), rng)
        for subject in subjects:
            row = _row(subject, "train", "id", number)
            rows.append(row)
    return rows


def _subjects(
    by_class: Sequence[Sequence[Scan]], counts: Sequence[int], rng: Generator
) -> list[_Subject]:
    """`counts[label]` random subjects of each class for one place, no scan twice."""
    *digits, empties = counts
    subjects: list[_Subject] = []
    for members, count in zip(by_class, digits, strict=True):
        size = min(count, len(members))  # a place may want more than there are
        scans = draw_some(members, size, rng)
        subjects += [_digit(scan) for scan in scans]
    subjects += [_empty("train", i) for i in range(empties)]
    return subjects


def _paired(split: str, pool: Sequence[Scan], mixes: Mixes, rng: Generator) -> list[Row]:
    """Each digit and a share of empty images, at one random place of either domain.

    A place is likelier the commoner the class is there.
    """
    ratio = len(pool) * EMPTIES / (1 - EMPTIES)
    empties = round(ratio)
    subjects = [_digit(scan) for scan in pool]
    subjects += [_empty(split, i) for i in range(empties)]
    seen = _at_places(subjects, split, "id", PLACES["train"], mixes, rng)
    unseen = _at_places(subjects, split, "ood", PLACES[split], mixes, rng)
    return seen + unseen


def _at_places(
    subjects: Sequence[_Subject],
    split: str,
    domain: str,
    numbers: Sequence[int],
    mixes: Mixes,
    rng: Generator,
) -> list[Row]:
    """Each subject at one of the places, with a probability that follows their class mixes."""
    likely = np.array([mixes[number] for number in numbers])  # (places, classes)
    likely = likely / likely.sum(0)
    count = len(numbers)
    rows: list[Row] = []
    for subject in subjects:
        shares = likely[:, subject.label]
        chosen = int(rng.choice(count, p=shares))
        row = _row(subject, split, domain, numbers[chosen])
        rows.append(row)
    return rows


def _digit(scan: Scan) -> _Subject:
    """A scan as a camera's subject."""
    name = f"digit-{scan.index:04d}"
    stream = (scan.index, 0)
    return _Subject(name, scan.label, scan.pixels, stream)


def _empty(split: str, i: int) -> _Subject:
    """The i-th empty image of its split; in training, of its place."""
    number = SPLITS.index(split)
    name = f"{EMPTY}-{split}-{i:03d}"
    label = CLASSES.index(EMPTY)
    stream = (number, i, NOTHING)
    return _Subject(name, label, None, stream)


def _row(subject: _Subject, split: str, domain: str, number: int) -> Row:
    """A LISTING row with the image of a subject at a place."""
    # a stream of its own: an image does not depend on how many were made before
    rng = np.random.default_rng([*subject.stream, number])
    image = place_look(subject.pixels, place(number), rng)
    return {
        "sample_id": f"{subject.name}-place-{number:02d}",
        "class_key": CLASSES[subject.label],
        "split": split,
        "domain": domain,
        "group": f"place-{number:02d}",
        "bytes": encode_image(image, "png"),
    }
