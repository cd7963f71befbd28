"""Images that cannot be used: what a user is told, and when that ends the job."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from discl_ray.core.columns import not_equal, rows_where
from discl_ray.core.storage import Store
from discl_ray.data.config import AnyDataConfig, FilesConfig
from discl_ray.data.listing import REJECTS, Listing
from discl_ray.data.verdicts import TWO_LABELS, Verdicts
from discl_ray.data.wording import counted, first_few, shown
from discl_ray.errors import DataError

NAMED = 20
"""Broken files that a message names; all of them are in REJECTED."""

EXAMPLES = 4
"""Files with two labels that it names."""

CLASSES = 8
"""Classes that it names."""

DETAIL = 240
"""Characters of a reason that it shows."""

REJECTED = "rejects.parquet"


def check_broken(config: AnyDataConfig, listing: Listing, found: pa.Table, store: Store) -> None:
    """Raises DataError if too many images cannot be used, and writes which into REJECTED.

    `found` is SCANNED of the listing.
    """
    bad = found["reason"].is_valid()
    splits = listing.table["split"].filter(bad)
    broken = found.filter(bad).append_column("split", splits)
    broken = broken.select(REJECTS.names).cast(REJECTS)
    rejects = pa.concat_tables([listing.refused, broken])
    total = found.num_rows + listing.refused.num_rows
    allowed = config.max_bad_fraction if isinstance(config, FilesConfig) else 0.0
    if rejects.num_rows <= allowed * total:
        return
    store.write_table(REJECTED, rejects)
    share = f"{rejects.num_rows} of {total} images cannot be used"
    lines = [f"{share}, more than data.max_bad_fraction = {allowed:g} allows:"]
    lines += broken_lines(rejects, store)
    lost = _lost_classes(listing, found)
    if lost:
        lines.append(f"    classes of which no image can be read: {first_few(lost, CLASSES)}")
    lines += [f"    {note}" for note in listing.notes]
    lines.append("mend or remove them, or raise data.max_bad_fraction")
    raise DataError("\n".join(lines))


def _lost_classes(listing: Listing, found: pa.Table) -> list[str]:
    """Classes without an image that can be used."""
    keys = listing.table["class_key"]
    good = keys.filter(found["reason"].is_null())
    listed = set(keys.unique().to_pylist())
    left = set(good.unique().to_pylist())
    return sorted(listed - left)


def broken_lines(rejects: pa.Table, store: Store) -> list[str]:
    """A line for each broken image with its reason, at most NAMED, and where the whole list is."""
    lines = _reject_lines(rejects, NAMED)
    more = rejects.num_rows - NAMED
    if more > 0:
        reasons = Counter(rejects["reason"].to_pylist())
        words = [f"{count} {reason}" for reason, count in reasons.most_common()]
        lines.append(f"    and {more} more ({', '.join(words)})")
    return [*lines, f"    the whole list: {store.path(REJECTED)}"]


def _reject_lines(rejects: pa.Table, limit: int) -> list[str]:
    """A line for each of the first rejects."""
    lines: list[str] = []
    for row in rejects.slice(0, limit).to_pylist():
        name = shown(row["sample_id"])
        detail = shown(row["detail"] or row["reason"], DETAIL)
        lines.append(f"    {name}: {detail}")
    return lines


def check_left(
    config: AnyDataConfig, verdicts: Verdicts, rejects: pa.Table, names: list[str], store: Store
) -> None:
    """Raises DataError if what is left cannot be trained on.

    `rejects` are those of the verdicts, `names` the class names by label.
    """
    conflicts = conflict_lines(rejects, store)
    if conflicts and isinstance(config, FilesConfig) and config.conflicts == "refuse":
        remedy = "data.conflicts = refuse: remove the wrong ones, or data.conflicts=drop"
        raise DataError("\n".join([*conflicts, remedy]).lstrip())
    train = verdicts.good & (verdicts.split == "train")
    if not train.any():
        wrong = "no training image is left; look at the splits and at what is broken"
    elif len(names) < 2:
        wrong = f"only one class ('{names[0]}'); at least two are needed"
    else:
        return
    lines = [f"data.name = {config.name}: {wrong}", *conflicts]
    others = rejects.filter(not_equal(rejects["reason"], TWO_LABELS))
    if others.num_rows:
        lines += broken_lines(others, store)
    raise DataError("\n".join(lines))


def conflict_lines(rejects: pa.Table, store: Store) -> list[str]:
    """Which files have the same bytes under two classes, with some examples; empty if none."""
    rows = rows_where(rejects, reason=TWO_LABELS)
    if not rows.num_rows:
        return []
    same = "have the same bytes under two classes and are left out of every split"
    files = counted(rows.num_rows, "file")
    lines = [f"  {files} {same}:"]
    lines += _reject_lines(rows, EXAMPLES)
    more = rows.num_rows - EXAMPLES
    if more > 0:
        lines.append(f"    and {more} more in {store.path(REJECTED)}")
    return lines
