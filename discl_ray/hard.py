# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""Which real samples deserve a spectrum.

By class count (paper §3.2, long-tail tasks): every training image of a class with few of them. The same rule picks, from the
val split, the sources of the probe spectra by which a curriculum judges its progress; test rows are never sources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from discl_ray.core.settings import Settings
from discl_ray.errors import DataError


class HardConfig(Settings):
    """The rule for hardness."""

    rule: Literal["class_count"] = "class_count"
    below: int = Field(default=6, ge=1)
    """Classes with fewer training images than this are hard."""
    probe_sources: int = Field(default=3, ge=0)
    """Val images per hard class that get a probe spectrum; 0 makes none."""


def class_counts(samples: pa.Table) -> dict[int, int]:
    """Training images by label."""
    return dict(Counter(samples.filter(pc.equal(samples["split"], "train"))["label"].to_pylist()))


def by_class_count(samples: pa.Table, config: HardConfig) -> set[int]:
    """Labels whose classes have fewer than `below` training images."""
    return {label for label, count in class_counts(samples).items() if count < config.below}


RULES: dict[str, Callable[[pa.Table, HardConfig], set[int]]] = {"class_count": by_class_count}
"""Rules for hardness: (SAMPLES, config) -> hard labels."""


def hard_samples(samples: pa.Table, config: HardConfig) -> pa.Table:
    """The sources of the spectrum as SAMPLES rows: hard training images, then val images for the probes.

    Raises DataError if no class is hard.
    """
    labels = RULES[config.rule](samples, config)
    if not labels:
        smallest = min(class_counts(samples).values(), default=0)
        raise DataError(
            f"hard.below = {config.below}: no class has fewer training images (the smallest has {smallest}); "
            "raise hard.below, or train without a spectrum (curriculum.strategy=real_only)"
        )
    hard = samples.filter(pc.is_in(samples["label"], pa.array(sorted(labels), pa.int32())))
    taken: Counter[int] = Counter()
    keep: list[bool] = []
    for split, label in zip(hard["split"].to_pylist(), hard["label"].to_pylist(), strict=True):
        if split == "val":
            taken[label] += 1
        keep.append(split == "train" or (split == "val" and taken[label] <= config.probe_sources))
    return hard.filter(pa.array(keep))
