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

Scans = Sequence[Scan]

Blocks = tuple[int, ...]
"""Numbers of blocks of writers."""


def digits_lt(config: DigitsLTConfig, seed: int) -> Listing:
    """The task of one seed."""
    rng = np.random.default_rng([seed, 0x1D])
    train_blocks, test_blocks = draw_blocks(rng)
    # the largest size goes to the first class of a random order
    order = rng.permutation(len(NAMES))
    sizes = np.zeros(len(NAMES), np.int64)
    sizes[order] = class_sizes(config.head, config.tail, len(NAMES))
    train_pool = scans_of(train_blocks)
    val_pool = scans_of((DEV_BLOCK,))
    test_pool = scans_of(test_blocks)
    # the order of the draws belongs to the task: another one is another task
    splits = {
        "train": _draw(train_pool, sizes.tolist(), rng),
        "val": _draw_balanced(val_pool, rng),
        "test": _draw_balanced(test_pool, rng),
    }
    rows: list[dict[str, object]] = []
    for split, scans in splits.items():
        rows += [_row(scan, split, config.look) for scan in scans]
    return inline(rows, Store.at("."), NAMES)


def draw_blocks(rng: Generator) -> tuple[Blocks, Blocks]:
    """The blocks of writers of train and of test: a random half of the task's each."""
    blocks = [int(block) for block in rng.permutation(TASK_BLOCKS)]
    half = len(blocks) // 2
    train = tuple(blocks[:half])
    test = tuple(blocks[half:])
    return train, test


def class_sizes(head: int, tail: int, classes: int) -> list[int]:
    """Exponentially falling sizes from `head` to `tail`."""
    shares = [i / (classes - 1) for i in range(classes)]
    return [round(head * (tail / head) ** share) for share in shares]


def by_digit(pool: Scans) -> list[list[Scan]]:
    """The scans of each class, by label."""
    classes: list[list[Scan]] = [[] for _ in NAMES]
    for scan in pool:
        classes[scan.label].append(scan)
    return classes


def _draw_balanced(pool: Scans, rng: Generator) -> list[Scan]:
    """As many random scans of every class as the smallest class has."""
    smallest = min(map(len, by_digit(pool)))
    return _draw(pool, [smallest] * len(NAMES), rng)


def _draw(pool: Scans, sizes: Sequence[int], rng: Generator) -> list[Scan]:
    """`sizes[label]` random scans of each class, class by class, each class in its own order."""
    drawn: list[Scan] = []
    for members, size in zip(by_digit(pool), sizes, strict=True):
        chosen = rng.choice(len(members), size=size, replace=False)
        drawn += [members[i] for i in sorted(chosen)]
    return drawn


def _row(scan: Scan, split: str, look: str) -> dict[str, object]:
    """A LISTING row with the rendered image."""
    return {
        "sample_id": f"digit-{scan.index:04d}",
        "class_key": NAMES[scan.label],
        "split": split,
        "domain": look,
        "group": f"writers-{scan.block:02d}",
        "bytes": encode_image(render(scan, look), "png"),
    }
