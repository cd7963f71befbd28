"""`digits_wild`: the embedded low-quality task, split by writer first and by place second.

Ten digits and `empty`, seen by cameras that do not move: dark, uneven, blurred, noisy, half hidden. Six blocks of writers are
the task's; a seed draws which three train and which three test, the dev block is val. Every place has a class mix of its own.
Each val and test digit is seen twice, at a place that is trained in (domain `id`) and at one that is not (`ood`), so the two
are paired. An image is a function of its scan and its place; the seed decides which of them there are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.config import DigitsWildConfig
from discl_ray.data.listing import Listing, inline
from discl_ray.embedded.digits import (
    DEV_BLOCK,
    NAMES,
    PLACES,
    TASK_BLOCKS,
    Scan,
    place,
    place_look,
    scans_of,
)

EMPTY = "empty"
CLASSES = (*NAMES, EMPTY)
"""Class keys by label."""

IMBALANCE = 6.0
"""How much commoner the commonest digit is than the rarest, over all places together."""

SKEW = 0.8
"""Concentration of a place's mix around that of all places: the smaller, the fewer digits a place shows."""

EMPTIES = 0.2
"""Empty images for each image in all: of val and test, and of the training places on average."""


def digits_wild(config: DigitsWildConfig, seed: int) -> Listing:
    """The task of one seed."""
    rng = np.random.default_rng([seed, 0x3D])
    blocks = [int(b) for b in rng.permutation(TASK_BLOCKS)]
    common = rng.permutation(IMBALANCE ** (-np.arange(len(NAMES)) / (len(NAMES) - 1)))
    mixes = {
        number: _mix(common, seed, number) for numbers in PLACES.values() for number in numbers
    }
    rows = _train(config, scans_of(tuple(blocks[:3])), mixes, rng)
    for split, pool in (("val", scans_of((DEV_BLOCK,))), ("test", scans_of(tuple(blocks[3:])))):
        rows += _paired(split, pool, mixes, rng)
    return inline(rows, Store.at("."), CLASSES)


def _mix(common: NDArray[np.float64], seed: int, number: int) -> NDArray[np.float64]:
    """How often each class is seen at a place, shape (11,), sum 1."""
    rng = np.random.default_rng([seed, number, 0x313])
    digits = rng.dirichlet(SKEW * len(NAMES) * common / common.sum())
    empty = EMPTIES * rng.uniform(0.3, 1.7)
    return np.append(digits * (1 - empty), empty)


def _train(
    config: DigitsWildConfig,
    pool: list[Scan],
    mixes: dict[int, NDArray[np.float64]],
    rng: np.random.Generator,
) -> list[dict[str, object]]:
    """Training rows: at each place as many of each class as its mix says, each scan at most once at a place."""
    by_class = [[scan for scan in pool if scan.label == c] for c in range(len(NAMES))]
    rows: list[dict[str, object]] = []
    for number in PLACES["train"]:
        counts = rng.multinomial(round(config.per_place * rng.uniform(0.6, 1.4)), mixes[number])
        for members, count in zip(by_class, counts[:-1], strict=True):
            chosen = rng.choice(len(members), size=min(int(count), len(members)), replace=False)
            rows += [_row(members[i], 0, "train", "id", number) for i in sorted(chosen)]
        rows += [_row(None, i, "train", "id", number) for i in range(int(counts[-1]))]
    return rows


def _paired(
    split: str, pool: list[Scan], mixes: dict[int, NDArray[np.float64]], rng: np.random.Generator
) -> list[dict[str, object]]:
    """Each digit, and as many empties as belong to them, at one place of either domain; commoner where its class is common."""
    empties = round(len(pool) * EMPTIES / (1 - EMPTIES))
    subjects = [*((scan, 0) for scan in pool), *((None, i) for i in range(empties))]
    rows: list[dict[str, object]] = []
    for domain, numbers in (("id", PLACES["train"]), ("ood", PLACES[split])):
        often = np.array([mixes[number] for number in numbers])
        often = often / often.sum(0)
        for scan, i in subjects:
            label = len(NAMES) if scan is None else scan.label
            number = numbers[int(rng.choice(len(numbers), p=often[:, label]))]
            rows.append(_row(scan, i, split, domain, number))
    return rows


def _row(scan: Scan | None, i: int, split: str, domain: str, number: int) -> dict[str, object]:
    """One image: a scan, or the i-th empty of its split (at a training place: of that place)."""
    if scan is None:
        name, stream, pixels = (
            f"{EMPTY}-{split}-{i:03d}",
            [("train", "val", "test").index(split), i, 1],
            None,
        )
    else:
        name, stream, pixels = f"digit-{scan.index:04d}", [scan.index, 0], scan.pixels
    image = place_look(pixels, place(number), np.random.default_rng([*stream, number]))
    return {
        "sample_id": f"{name}-place-{number:02d}",
        "class_key": EMPTY if scan is None else NAMES[scan.label],
        "split": split,
        "domain": domain,
        "group": f"place-{number:02d}",
        "bytes": encode_image(image, "png"),
    }
