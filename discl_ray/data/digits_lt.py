"""`digits_lt`: the embedded long-tailed task, split by writer.

Six blocks of writers belong to the task. The seed draws which three train and which three test,
which digits are rare, and which images a rare class keeps. Class sizes fall exponentially,
n_i = head * (tail / head)^(i / 9). The dev block is the val split, on which everything is tuned
and probed. Val and test are balanced.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.config import DigitsLTConfig
from discl_ray.data.listing import Listing, inline
from discl_ray.embedded.digits import DEV_BLOCK, NAMES, TASK_BLOCKS, Scan, render, scans_of

STREAM = 0x1D
"""Separates this task's random numbers from those of other tasks with the same seed."""

Scans = Sequence[Scan]
"""Handwritten digits of some blocks of writers."""

Row = dict[str, object]
"""A LISTING row, and the image's bytes."""

Blocks = tuple[int, ...]
"""Numbers of blocks of writers."""


def digits_lt(config: DigitsLTConfig, seed: int) -> Listing:
    """The task of one seed."""
    rng = np.random.default_rng([seed, STREAM])
    # the order of all draws belongs to the task: another order is another task
    train_blocks, test_blocks = draw_blocks(rng)
    sizes = _shuffled_sizes(config, rng)
    train_pool = scans_of(train_blocks)
    train = _draw(train_pool, sizes, rng)
    val_pool = scans_of((DEV_BLOCK,))
    val = _draw_balanced(val_pool, rng)
    test_pool = scans_of(test_blocks)
    test = _draw_balanced(test_pool, rng)
    look = config.look
    rows = _rows(train, "train", look)
    rows += _rows(val, "val", look)
    rows += _rows(test, "test", look)
    nowhere = Store.at(".")  # the bytes are in the rows, so the root is never read
    return inline(rows, nowhere, NAMES)


def draw_blocks(rng: Generator) -> tuple[Blocks, Blocks]:
    """The blocks of writers of train and of test: a random half of the task's each."""
    order = rng.permutation(TASK_BLOCKS)
    blocks = order.tolist()
    half = len(blocks) // 2
    train = tuple(blocks[:half])
    test = tuple(blocks[half:])
    return train, test


def _shuffled_sizes(config: DigitsLTConfig, rng: Generator) -> list[int]:
    """The number of training images by label; which digits are rare is random."""
    classes = len(NAMES)
    falling = class_sizes(config.head, config.tail, classes)
    order = rng.permutation(classes)
    sizes = [0] * classes
    for label, size in zip(order, falling, strict=True):
        sizes[label] = size
    return sizes


def class_sizes(head: int, tail: int, classes: int) -> list[int]:
    """Exponentially falling sizes from `head` to `tail`."""
    ratio = tail / head
    last = classes - 1
    sizes: list[int] = []
    for i in range(classes):
        share = i / last
        size = head * ratio**share
        sizes.append(round(size))
    return sizes


def by_digit(pool: Scans) -> list[list[Scan]]:
    """The scans of each class, by label."""
    classes: list[list[Scan]] = [[] for _ in NAMES]
    for scan in pool:
        members = classes[scan.label]
        members.append(scan)
    return classes


def _draw_balanced(pool: Scans, rng: Generator) -> list[Scan]:
    """As many random scans of every class as the smallest class has."""
    counts = [len(members) for members in by_digit(pool)]
    smallest = min(counts)
    sizes = [smallest] * len(counts)
    return _draw(pool, sizes, rng)


def _draw(pool: Scans, sizes: Sequence[int], rng: Generator) -> list[Scan]:
    """`sizes[label]` random scans of each class, class by class, each class in its own order."""
    drawn: list[Scan] = []
    classes = by_digit(pool)
    for members, size in zip(classes, sizes, strict=True):
        drawn += draw_some(members, size, rng)
    return drawn


def draw_some(members: Scans, size: int, rng: Generator) -> list[Scan]:
    """`size` different random scans, in the order they have in `members`."""
    count = len(members)
    chosen = rng.choice(count, size=size, replace=False)
    ordered = sorted(chosen)
    return [members[i] for i in ordered]


def _rows(scans: Scans, split: str, look: str) -> list[Row]:
    """The rows of a split."""
    return [_row(scan, split, look) for scan in scans]


def _row(scan: Scan, split: str, look: str) -> Row:
    """A LISTING row with the rendered image."""
    image = render(scan, look)
    return {
        "sample_id": f"digit-{scan.index:04d}",
        "class_key": NAMES[scan.label],
        "split": split,
        "domain": look,
        "group": f"writers-{scan.block:02d}",
        "bytes": encode_image(image, "png"),
    }
