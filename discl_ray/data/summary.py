"""What a data set holds, in words."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from discl_ray.core.columns import either, equal, negate, rows_where, starts_with, total
from discl_ray.core.splits import SPLITS, USES, no_image
from discl_ray.data.broken import CLASSES, REJECTED, broken_lines, conflict_lines
from discl_ray.data.samples import Samples
from discl_ray.data.verdicts import ALSO_IN, TWO_LABELS
from discl_ray.data.wording import counted, first_few


def summarize_samples(samples: Samples) -> str:
    """Images and classes by split, broken images by name, and classes too small to be judged."""
    counts = {split: _images_by_label(samples.table, split) for split in SPLITS}
    sizes = [f"{split} {count.total()}" for split, count in counts.items()]
    classes = counted(len(samples.classes), "class", "classes")
    lines = [f"  {classes} · images: {', '.join(sizes)}"]
    lines += [f"  {note}" for note in samples.notes]
    lines += _rejected(samples)
    for split, use in USES.items():
        count = counts[split]
        if not count:
            lines.append(f"  {no_image(split)}")
            continue
        lacking = [name for label, name in enumerate(samples.classes) if not count[label]]
        if lacking:
            without = counted(len(lacking), "class", "classes")
            names = first_few(lacking, CLASSES)
            unused = f"without an image to {use} ({split})"
            lines.append(f"  {without} {unused}: {names}")
    return "\n".join(lines)


def _images_by_label(table: pa.Table, split: str) -> Counter[int]:
    """How many images of a split each label has."""
    rows = rows_where(table, split=split)
    return Counter(rows["label"].to_pylist())


def _rejected(samples: Samples) -> list[str]:
    """What is not used, by kind: broken images, those with two labels, copies."""
    reasons = samples.rejects["reason"]
    copied = starts_with(reasons, ALSO_IN)
    others = either(copied, equal(reasons, TWO_LABELS))
    broken = samples.rejects.filter(negate(others))
    lines: list[str] = []
    if broken.num_rows:
        lines.append(f"  {counted(broken.num_rows, 'image')} cannot be used:")
        lines += broken_lines(broken, samples.store)
    lines += conflict_lines(samples.rejects, samples.store)
    copies = total(copied)
    if copies:
        why = "left out because the same bytes are in another split"
        images = counted(copies, "image")
        lines.append(f"  {images} {why} ({REJECTED})")
    return lines
