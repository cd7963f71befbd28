"""`digits_lt`: the embedded long-tailed task, split by writer.

Six blocks of writers are the task's; a seed draws which three train and which three test, which digits are rare, and which
images a rare class keeps. Class sizes fall exponentially, n_i = head * (tail / head)^(i / 9). The dev block is the val split:
everything that is tuned or probed. Val and test are balanced.
"""

from __future__ import annotations

import numpy as np

from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.config import DigitsLTConfig
from discl_ray.data.listing import Listing, inline
from discl_ray.embedded.digits import DEV_BLOCK, NAMES, TASK_BLOCKS, Scan, render, scans_of


def class_sizes(head: int, tail: int, classes: int) -> list[int]:
    """Exponentially falling sizes from `head` to `tail`."""
    return [round(head * (tail / head) ** (i / (classes - 1))) for i in range(classes)]


def _balanced(pool: list[Scan], rng: np.random.Generator) -> list[Scan]:
    by_class = [[s for s in pool if s.label == c] for c in range(len(NAMES))]
    smallest = min(map(len, by_class))
    return [s for members in by_class for s in _draw(members, smallest, rng)]


def _draw(members: list[Scan], count: int, rng: np.random.Generator) -> list[Scan]:
    return [members[i] for i in sorted(rng.choice(len(members), size=count, replace=False))]


def digits_lt(config: DigitsLTConfig, seed: int) -> Listing:
    """The task of one seed."""
    rng = np.random.default_rng([seed, 0x1D])
    blocks = rng.permutation(TASK_BLOCKS)
    train_blocks, test_blocks = tuple(map(int, blocks[:3])), tuple(map(int, blocks[3:]))
    order = rng.permutation(len(NAMES))
    sizes = dict(
        zip(order.tolist(), class_sizes(config.head, config.tail, len(NAMES)), strict=True)
    )
    train_pool = scans_of(train_blocks)
    splits = {
        "train": [
            s
            for c in range(10)
            for s in _draw([p for p in train_pool if p.label == c], sizes[c], rng)
        ],
        "val": _balanced(scans_of((DEV_BLOCK,)), rng),
        "test": _balanced(scans_of(test_blocks), rng),
    }
    rows = [_row(scan, split, config.look) for split, members in splits.items() for scan in members]
    return inline(rows, Store.at("."), NAMES)


def _row(scan: Scan, split: str, look: str) -> dict[str, object]:
    return {
        "sample_id": f"digit-{scan.index:04d}",
        "class_key": NAMES[scan.label],
        "split": split,
        "domain": look,
        "group": f"writers-{scan.block:02d}",
        "bytes": encode_image(render(scan, look), "png"),
    }
