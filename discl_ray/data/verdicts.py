"""Which images are used, and in which split.

Broken ones are rejected first, then those with two labels, then copies in other splits; last the
long tail is cut.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from discl_ray.core.columns import places_in
from discl_ray.data.config import AnyDataConfig, FilesConfig, LongTail
from discl_ray.data.listing import REJECTS, Listing
from discl_ray.data.splits import (
    Integers,
    Mask,
    Strings,
    conflicts,
    duplicates,
    fill_splits,
    long_tail,
)

TWO_LABELS = "two_labels"
"""Reason to reject a file: another one with the same bytes has another class."""

ALSO_IN = "also_in_"
"""With a split, reason to reject a file: one with the same bytes is in that split."""


@dataclass
class Verdicts:
    """What becomes of each row of a listing, by column, shape (N,) each."""

    label: Integers
    split: Strings
    good: Mask
    """Whether it is used."""
    reason: Strings
    """Why it is rejected; None for what is used, or left out of a long tail."""
    detail: Strings

    def reject(self, row: int, reason: str, detail: str) -> None:
        """One row is not used."""
        self.good[row] = False
        self.reason[row] = reason
        self.detail[row] = f"{reason}: {detail}"

    def rejects(self, listing: Listing) -> pa.Table:
        """REJECTS of all that cannot be used."""
        rows = np.flatnonzero([reason is not None for reason in self.reason])
        ids = listing.table["sample_id"].take(pa.array(rows, pa.int64()))
        own = {
            "sample_id": ids.combine_chunks(),
            "split": self.split[rows].tolist(),
            "reason": self.reason[rows].tolist(),
            "detail": self.detail[rows].tolist(),
        }
        return pa.concat_tables([listing.refused, pa.table(own, schema=REJECTS)])


def judge_rows(
    config: AnyDataConfig, listing: Listing, found: pa.Table, names: list[str], seed: int
) -> Verdicts:
    """Which rows are used, and in which split.

    `found` is SCANNED of the listing, `names` are the class names by label.
    """
    label = places_in(listing.table["class_key"], listing.keys)
    verdicts = Verdicts(
        label=label.to_numpy(zero_copy_only=False),
        split=_strings(listing.table["split"]),
        good=np.array(found["reason"].is_null().to_pylist(), bool),
        reason=_strings(found["reason"]),
        detail=_strings(found["detail"]),
    )
    if not isinstance(config, FilesConfig):
        return verdicts
    ids = listing.table["sample_id"].to_pylist()
    sha256 = _strings(found["sha256"])
    group = _strings(listing.table["group"])
    _reject_conflicts(verdicts, ids, sha256, names)
    _draw_splits(config, verdicts, ids, sha256, group, seed)
    if config.cross_split_duplicates == "exclude":
        _reject_copies(verdicts, sha256)
    if config.long_tail is not None and config.name != "cifar100_lt":  # which cuts its own
        _cut_tail(config.long_tail, verdicts, ids, seed)
    return verdicts


def _strings(column: pa.ChunkedArray) -> Strings:
    """A column of text as an array."""
    return np.array(column.to_pylist(), object)


def _reject_conflicts(
    verdicts: Verdicts, ids: list[str], sha256: Strings, names: list[str]
) -> None:
    """The same bytes under two labels: nobody knows which is right."""
    part = np.flatnonzero(verdicts.good)
    others = conflicts(verdicts.label[part], sha256[part])
    for row, other in zip(part.tolist(), others.tolist(), strict=True):
        if other < 0:
            continue
        twin = part[other]
        own = names[verdicts.label[row]]
        theirs = names[verdicts.label[twin]]
        place = ids[twin]
        detail = f"'{own}' here, and the same bytes are '{theirs}' in {place}"
        verdicts.reject(row, TWO_LABELS, detail)


def _draw_splits(
    config: FilesConfig,
    verdicts: Verdicts,
    ids: list[str],
    sha256: Strings,
    group: Strings,
    seed: int,
) -> None:
    """Draws the splits that are open; copies of one image are drawn together."""
    part = np.flatnonzero(verdicts.good)
    verdicts.split[part] = fill_splits(
        verdicts.split[part],
        verdicts.label[part].astype(np.int64),
        _tied(group[part], sha256[part]),
        [ids[row] for row in part],
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        seed=seed,
    )


def _tied(group: Strings, sha256: Strings) -> Strings:
    """The groups, and copies of one image as a group where they have none."""
    copies = Counter(sha256.tolist())
    tied = group.copy()
    for row, digest in enumerate(sha256.tolist()):
        if tied[row] is None and copies[digest] > 1:
            tied[row] = digest
    return tied


def _reject_copies(verdicts: Verdicts, sha256: Strings) -> None:
    """Only one split keeps an image."""
    part = np.flatnonzero(verdicts.good)
    owners = duplicates(verdicts.split[part], sha256[part])
    for row, owner in zip(part.tolist(), owners.tolist(), strict=True):
        if owner is not None:
            verdicts.reject(row, ALSO_IN + owner, "the same bytes are in another split")


def _cut_tail(tail: LongTail, verdicts: Verdicts, ids: list[str], seed: int) -> None:
    """Leaves training rows out so that the classes are long-tailed; they are not rejects."""
    train = np.flatnonzero(verdicts.good & (verdicts.split == "train"))
    label = verdicts.label[train].astype(np.int64)
    own = [ids[row] for row in train]
    keep = long_tail(label, own, imbalance=tail.imbalance, head=tail.head, seed=seed)
    verdicts.good[train[~keep]] = False
