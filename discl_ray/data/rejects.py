"""Rejected images: how they are reported, and when there are too many to go on.

Which images are rejected is decided before: by a reader (`listing`), by decoding (`scan`), and by
comparing files (`verdicts`).
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from discl_ray.core.columns import not_equal, rows_where
from discl_ray.core.storage import Store
from discl_ray.data.config import AnyDataConfig, FilesConfig
from discl_ray.data.listing import REJECTS, Listing
from discl_ray.data.splits import TRAIN
from discl_ray.data.verdicts import TWO_LABELS, Verdicts
from discl_ray.data.wording import counted, first_few, shown
from discl_ray.errors import DataError

NAMED = 20
"""Rejected files that a message names; all of them are in REJECTED."""

EXAMPLES = 4
"""Files with two labels that it names."""

CLASSES = 8
"""Classes that it names."""

DETAIL = 240
"""Characters of a reason that it shows."""

REJECTED = "rejects.parquet"
"""The file with REJECTS of a data set, in the folder of its samples."""

REMEDY = "repair or remove them, or raise data.max_bad_fraction"

DROP_REMEDY = "data.conflicts = refuse: remove the wrong ones, or data.conflicts=drop"


def check_bad_fraction(
    config: AnyDataConfig, listing: Listing, found: pa.Table, store: Store
) -> None:
    """Raises DataError if more than data.max_bad_fraction of the images cannot be used.

    REJECTED then lists them all. `found` is SCANNED of the listing.
    """
    rejects = _rejects(listing, found)
    total = found.num_rows + listing.refused.num_rows
    allowed = _allowed(config)
    if rejects.num_rows <= allowed * total:
        return
    # written before the error is raised, which names only the first of them
    store.write_table(REJECTED, rejects)
    share = f"{rejects.num_rows} of {total} images cannot be used"
    limit = f"more than data.max_bad_fraction = {allowed:g}"
    lines = [f"{share}, {limit} allows:"]
    lines += broken_lines(rejects, store)
    lost = _lost_classes(listing, found)
    if lost:
        some = first_few(lost, CLASSES)
        lines.append(f"    classes of which no image can be read: {some}")
    lines += [f"    {note}" for note in listing.notes]
    lines.append(REMEDY)
    raise DataError("\n".join(lines))


def _rejects(listing: Listing, found: pa.Table) -> pa.Table:
    """REJECTS: what the reader refused, then what cannot be decoded."""
    bad = found["reason"].is_valid()
    splits = listing.table["split"].filter(bad)
    broken = found.filter(bad)
    broken = broken.append_column("split", splits)
    broken = broken.select(REJECTS.names)
    return pa.concat_tables([listing.refused, broken.cast(REJECTS)])


def _allowed(config: AnyDataConfig) -> float:
    """The share of images that may be broken; 0 for embedded data sets."""
    if isinstance(config, FilesConfig):
        return config.max_bad_fraction
    return 0.0


def _lost_classes(listing: Listing, found: pa.Table) -> list[str]:
    """Classes without an image that can be used."""
    keys = listing.table["class_key"]
    readable = found["reason"].is_null()
    good = keys.filter(readable)
    listed = set(keys.unique().to_pylist())
    left = set(good.unique().to_pylist())
    lost = listed - left
    return sorted(lost)


def broken_lines(rejects: pa.Table, store: Store) -> list[str]:
    """A line for each broken image with its reason, at most NAMED, and where the whole list is."""
    lines = _reject_lines(rejects, NAMED)
    more = rejects.num_rows - NAMED
    if more > 0:
        reasons = Counter(rejects["reason"].to_pylist())  # of all, not only of the others
        words: list[str] = []
        for reason, count in reasons.most_common():
            words.append(f"{count} {reason}")
        kinds = ", ".join(words)
        lines.append(f"    and {more} more ({kinds})")
    place = store.location(REJECTED)
    lines.append(f"    the whole list: {place}")
    return lines


def _reject_lines(rejects: pa.Table, limit: int) -> list[str]:
    """A line for each of the first rejects."""
    lines: list[str] = []
    for row in rejects.slice(0, limit).to_pylist():
        name = shown(row["sample_id"])
        reason = row["detail"] or row["reason"]
        detail = shown(reason, DETAIL)
        lines.append(f"    {name}: {detail}")
    return lines


def check_trainable(
    config: AnyDataConfig, verdicts: Verdicts, rejects: pa.Table, names: list[str], store: Store
) -> None:
    """Raises DataError if the remaining images cannot be trained on.

    `rejects` are those of the verdicts, `names` the class names by label.
    """
    conflicts = conflict_lines(rejects, store)
    if conflicts and _refuses_conflicts(config):
        message = "\n".join([*conflicts, DROP_REMEDY])
        raise DataError(message.lstrip())
    wrong = _shortage(verdicts, names)
    if wrong is None:
        return
    heading = f"data.name = {config.name}: {wrong}"
    lines = [heading, *conflicts]
    # what has two labels is in `conflicts` already
    rest = not_equal(rejects["reason"], TWO_LABELS)
    others = rejects.filter(rest)
    if others.num_rows:
        lines += broken_lines(others, store)
    raise DataError("\n".join(lines))


def _refuses_conflicts(config: AnyDataConfig) -> bool:
    """Whether files with the same bytes under two classes end the job."""
    return isinstance(config, FilesConfig) and config.conflicts == "refuse"


def _shortage(verdicts: Verdicts, names: list[str]) -> str | None:
    """Why the remaining images cannot be trained on; None if they can."""
    train = verdicts.split == TRAIN
    used = verdicts.good & train
    if not used.any():
        return "no training image is left; look at the splits and at what is broken"
    if len(names) < 2:
        only = names[0]
        return f"only one class ('{only}'); at least two are needed"
    return None


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
        place = store.location(REJECTED)
        lines.append(f"    and {more} more in {place}")
    return lines
