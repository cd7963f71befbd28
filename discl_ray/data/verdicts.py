"""Which images are used, and in which split.

Broken ones are rejected first, then those with two labels, then copies in other splits; last the
long tail is cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from discl_ray.core.arrays import Bools, Ints
from discl_ray.core.columns import Column, as_numpy, is_null, joined, places_in
from discl_ray.data.config import AnyDataConfig, FilesConfig, LongTail
from discl_ray.data.listing import REJECTS, Listing
from discl_ray.data.splits import (
    NONE,
    SPLITS,
    TRAIN,
    Codes,
    codes_of,
    conflicts,
    duplicates,
    fill_splits,
    long_tail,
    split_codes,
    split_names,
)

TWO_LABELS = "two_labels"
"""Reason to reject a file: another one with the same bytes has another class."""

ALSO_IN = "also_in_"
"""With a split, reason to reject a file: one with the same bytes is in that split."""


REASONS = pa.schema([("number", pa.int64()), REJECTS.field("reason"), REJECTS.field("detail")])
"""Rejected rows of a listing by their number, and why."""


@dataclass
class Verdicts:
    """What becomes of each row of a listing, by column, shape (N,) each."""

    label: Ints
    split: Codes
    """As in `splits`."""
    good: Bools
    """Whether it is used."""
    _rejected: list[pa.Table] = field(default_factory=list[pa.Table])
    """REASONS of what is rejected; a row is in one of them, and none is left out by a long tail."""

    def reject(self, rows: Ints, reason: Column | str, detail: Column | str) -> None:
        """Some rows are not used; reason and detail are columns, or the same for all."""
        self.good[rows] = False
        columns = [pa.array(rows, pa.int64())]
        for given in (reason, detail):
            same = isinstance(given, str)
            columns.append(pa.repeat(given, len(rows)) if same else given)
        self._rejected.append(pa.table(columns, names=REASONS.names).cast(REASONS))

    def rejects(self, listing: Listing) -> pa.Table:
        """REJECTS of all that cannot be used, in the order of the listing."""
        found = pa.concat_tables([REASONS.empty_table(), *self._rejected]).sort_by("number")
        numbers = found["number"].combine_chunks()
        own = {
            "sample_id": listing.table["sample_id"].take(numbers),
            "split": split_names(self.split[numbers.to_numpy()]),
            "reason": found["reason"],
            "detail": found["detail"],
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
        label=label.to_numpy(zero_copy_only=False).astype(np.int64),
        split=split_codes(listing.table["split"]).copy(),  # Arrow's own memory is read-only
        good=np.ones(found.num_rows, bool),
    )
    _reject_broken(verdicts, found)
    if not isinstance(config, FilesConfig):
        return verdicts
    ids = listing.table["sample_id"]
    content = codes_of(found["sha256"])
    _reject_conflicts(verdicts, ids, content, names)
    group = codes_of(listing.table["group"])
    _draw_splits(config, verdicts, ids, _tied(verdicts, group, content), seed)
    if config.cross_split_duplicates == "exclude":
        _reject_copies(verdicts, content)
    if config.long_tail is not None and config.name != "cifar100_lt":  # which cuts its own
        _cut_tail(config.long_tail, verdicts, ids, seed)
    return verdicts


def _reject_broken(verdicts: Verdicts, found: pa.Table) -> None:
    """What cannot be read or decoded."""
    broken = np.flatnonzero(~as_numpy(is_null(found["reason"])))
    rows = found.take(pa.array(broken))
    verdicts.reject(broken, rows["reason"], rows["detail"])


def _reject_conflicts(verdicts: Verdicts, ids: Column, content: Codes, names: list[str]) -> None:
    """The same bytes under two labels: nobody knows which is right."""
    part = np.flatnonzero(verdicts.good)
    others = conflicts(verdicts.label[part], content[part])
    conflicting = others != NONE
    rows = part[conflicting]
    twins = part[others[conflicting]]
    name_of = pa.array(names, pa.string())
    own = name_of.take(pa.array(verdicts.label[rows]))
    theirs = name_of.take(pa.array(verdicts.label[twins]))
    places = ids.take(pa.array(twins))
    words = [f"{TWO_LABELS}: '", own, "' here, and the same bytes are '", theirs, "' in ", places]
    verdicts.reject(rows, TWO_LABELS, joined(words))


def _draw_splits(
    config: FilesConfig, verdicts: Verdicts, ids: Column, group: Codes, seed: int
) -> None:
    """Draws the splits that are open; rows of a group are drawn together."""
    part = np.flatnonzero(verdicts.good)
    verdicts.split[part] = fill_splits(
        verdicts.split[part],
        verdicts.label[part],
        group[part],
        ids.take(pa.array(part)),
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        seed=seed,
    )


def _tied(verdicts: Verdicts, group: Codes, content: Codes) -> Codes:
    """The groups, and usable copies of one image as a group where they have none."""
    usable = verdicts.good & (content != NONE)
    copies = np.bincount(content[usable], minlength=content.max(initial=NONE) + 1)
    ungrouped = usable & (group == NONE)
    rows = np.flatnonzero(ungrouped)
    copied = rows[copies[content[rows]] > 1]
    tied = group.copy()
    # contents are numbered above the groups
    tied[copied] = group.max(initial=NONE) + 1 + content[copied]
    return tied


def _reject_copies(verdicts: Verdicts, content: Codes) -> None:
    """Only one split keeps an image."""
    part = np.flatnonzero(verdicts.good)
    owners = duplicates(verdicts.split[part], content[part])
    for number, name in enumerate(SPLITS):
        rows = part[owners == number]
        reason = ALSO_IN + name
        verdicts.reject(rows, reason, f"{reason}: the same bytes are in another split")


def _cut_tail(tail: LongTail, verdicts: Verdicts, ids: Column, seed: int) -> None:
    """Leaves training rows out so that the classes are long-tailed; they are not rejects."""
    train = np.flatnonzero(verdicts.good & (verdicts.split == TRAIN))
    own = ids.take(pa.array(train))
    keep = long_tail(
        verdicts.label[train], own, imbalance=tail.imbalance, head=tail.head, seed=seed
    )
    verdicts.good[train[~keep]] = False
