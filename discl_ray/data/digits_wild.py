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
from numpy.typing import NDArray

from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.config import DigitsWildConfig
from discl_ray.data.digits_lt import by_digit, draw_blocks
from discl_ray.data.listing import Listing, inline
from discl_ray.embedded.digits import DEV_BLOCK, NAMES, Scan, scans_of
from discl_ray.embedded.places import PLACES, place, place_look

EMPTY = "empty"
CLASSES = (*NAMES, EMPTY)
"""Class keys by label."""

IMBALANCE = 6.0
"""How many times as common the commonest digit is as the rarest, over all places together."""

SKEW = 0.8
"""Dirichlet concentration of a place's mix: the smaller, the fewer kinds of digits it shows."""

EMPTIES = 0.2
"""Share of empty images: of val and test, and of the training places on average."""

Floats = NDArray[np.float64]

Mixes = Mapping[int, Floats]
"""Number of a place -> how often each class is seen there, shape (11,), sum 1."""


@dataclass(frozen=True)
class _Subject:
    """What a camera sees: a digit, or nothing."""

    name: str
    label: int
    pixels: Floats | None
    """Ink in [0, 1], shape (8, 8); None for an empty image."""
    stream: tuple[int, ...]
    """Seeds its look at a place, with the place's number."""


def digits_wild(config: DigitsWildConfig, seed: int) -> Listing:
    """The task of one seed."""
    rng = np.random.default_rng([seed, 0x3D])
    train_blocks, test_blocks = draw_blocks(rng)
    rarest = len(NAMES) - 1
    ranks = np.arange(len(NAMES)) / rarest
    common = rng.permutation(IMBALANCE**-ranks)
    mixes: dict[int, Floats] = {}
    for numbers in PLACES.values():
        mixes |= {number: _mix(common, seed, number) for number in numbers}
    train_pool = scans_of(train_blocks)
    val_pool = scans_of((DEV_BLOCK,))
    test_pool = scans_of(test_blocks)
    rows = _train(config, train_pool, mixes, rng)
    rows += _paired("val", val_pool, mixes, rng)
    rows += _paired("test", test_pool, mixes, rng)
    return inline(rows, Store.at("."), CLASSES)


def _mix(common: Floats, seed: int, number: int) -> Floats:
    """How often each class is seen at a place, shape (11,), sum 1."""
    rng = np.random.default_rng([seed, number, 0x313])
    concentration = SKEW * len(NAMES) * common / common.sum()
    digits = rng.dirichlet(concentration)
    empty = EMPTIES * rng.uniform(0.3, 1.7)
    return np.append(digits * (1 - empty), empty)


def _train(
    config: DigitsWildConfig, pool: Sequence[Scan], mixes: Mixes, rng: np.random.Generator
) -> list[dict[str, object]]:
    """Training rows: at each place as many of each class as its mix says, no scan twice."""
    by_class = by_digit(pool)
    rows: list[dict[str, object]] = []
    for number in PLACES["train"]:
        total = round(config.per_place * rng.uniform(0.6, 1.4))
        counts = rng.multinomial(total, mixes[number])
        *digits, empties = (int(count) for count in counts)
        subjects: list[_Subject] = []
        for members, count in zip(by_class, digits, strict=True):
            size = min(count, len(members))
            chosen = rng.choice(len(members), size=size, replace=False)
            subjects += [_digit(members[i]) for i in sorted(chosen)]
        subjects += [_empty("train", i) for i in range(empties)]
        rows += [_row(subject, "train", "id", number) for subject in subjects]
    return rows


def _paired(
    split: str, pool: Sequence[Scan], mixes: Mixes, rng: np.random.Generator
) -> list[dict[str, object]]:
    """Each digit and a share of empty images, at one random place of either domain.

    A place is likelier the commoner the class is there.
    """
    empties = round(len(pool) * EMPTIES / (1 - EMPTIES))
    subjects = [_digit(scan) for scan in pool]
    subjects += [_empty(split, i) for i in range(empties)]
    rows: list[dict[str, object]] = []
    places = {"id": PLACES["train"], "ood": PLACES[split]}
    for domain, numbers in places.items():
        likely = np.array([mixes[number] for number in numbers])  # (places, classes)
        likely = likely / likely.sum(0)
        for subject in subjects:
            shares = likely[:, subject.label]
            number = numbers[int(rng.choice(len(numbers), p=shares))]
            rows.append(_row(subject, split, domain, number))
    return rows


def _digit(scan: Scan) -> _Subject:
    """A scan as a camera's subject."""
    return _Subject(
        name=f"digit-{scan.index:04d}", label=scan.label, pixels=scan.pixels, stream=(scan.index, 0)
    )


def _empty(split: str, i: int) -> _Subject:
    """The i-th empty image of its split; in training, of its place."""
    number = ("train", "val", "test").index(split)
    return _Subject(
        name=f"{EMPTY}-{split}-{i:03d}",
        label=CLASSES.index(EMPTY),
        pixels=None,
        stream=(number, i, 1),
    )


def _row(subject: _Subject, split: str, domain: str, number: int) -> dict[str, object]:
    """A LISTING row with the image of a subject at a place."""
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
