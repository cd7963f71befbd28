"""What a data set holds, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from discl_ray.core.columns import either, equal, negate, rows_where, starts_with, total
from discl_ray.core.splits import SPLITS, USES, no_image
from discl_ray.data.rejects import CLASSES, REJECTED, broken_lines, conflict_lines
from discl_ray.data.samples import Samples
from discl_ray.data.verdicts import ALSO_IN, TWO_LABELS
from discl_ray.data.wording import counted, first_few


def summarize_samples(samples: Samples) -> str:
    """Images and classes by split, broken images by name, and classes too small to be judged."""
    counts: dict[str, Counter[int]] = {}
    sizes: list[str] = []
    for split in SPLITS:
        count = _images_by_label(samples.table, split)
        counts[split] = count
        sizes.append(f"{split} {count.total()}")
    classes = counted(len(samples.classes), "class", "classes")
    images = ", ".join(sizes)
    lines = [f"  {classes} · images: {images}"]
    lines += [f"  {note}" for note in samples.notes]
    lines += _rejected(samples)
    for split in USES:
        count = counts[split]
        lines += _lacking(samples.classes, split, count)
    return "\n".join(lines)


def _lacking(classes: Sequence[str], split: str, count: Counter[int]) -> list[str]:
    """A line on the classes that a split lacks, if any; `count` is its images by label."""
    if not count:
        nothing = no_image(split)
        return [f"  {nothing}"]
    lacking: list[str] = []
    for label, name in enumerate(classes):
        if not count[label]:
            lacking.append(name)
    if not lacking:
        return []
    without = counted(len(lacking), "class", "classes")
    names = first_few(lacking, CLASSES)
    use = USES[split]
    unused = f"without an image to {use} ({split})"
    return [f"  {without} {unused}: {names}"]


def _images_by_label(table: pa.Table, split: str) -> Counter[int]:
    """How many images of a split each label has."""
    rows = rows_where(table, split=split)
    labels = rows["label"].to_pylist()
    return Counter(labels)


def _rejected(samples: Samples) -> list[str]:
    """What is not used, by kind: broken images, those with two labels, copies."""
    reasons = samples.rejects["reason"]
    copied = starts_with(reasons, ALSO_IN)
    conflicting = equal(reasons, TWO_LABELS)
    others = either(copied, conflicting)
    rest = negate(others)
    broken = samples.rejects.filter(rest)
    lines: list[str] = []
    if broken.num_rows:
        images = counted(broken.num_rows, "image")
        lines.append(f"  {images} cannot be used:")
        lines += broken_lines(broken, samples.store)
    lines += conflict_lines(samples.rejects, samples.store)
    copies = total(copied)
    if copies:
        why = "left out because the same bytes are in another split"
        images = counted(copies, "image")
        lines.append(f"  {images} {why} ({REJECTED})")
    return lines
