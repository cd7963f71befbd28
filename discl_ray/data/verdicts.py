# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""Who is used, and in which split: what is broken goes, then what has two labels, then copies in other splits, then the tail."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from discl_ray.data.config import AnyDataConfig, FilesConfig, LongTail
from discl_ray.data.listing import REJECTS, Listing
from discl_ray.data.splits import conflicts, duplicates, fill_splits, long_tail

TWO_LABELS = "two_labels"
"""The reason why files are rejected whose bytes stand under another class as well."""


@dataclass
class Verdicts:
    """What becomes of each row of a listing, by column."""

    label: NDArray[np.int64]
    split: NDArray[np.object_]
    good: NDArray[np.bool_]
    """Whether it is used."""
    reason: NDArray[np.object_]
    """Why it is rejected; null for what is used, or left out of a long tail."""
    detail: NDArray[np.object_]

    def reject(self, row: int, reason: str, detail: str) -> None:
        """One row is not used."""
        self.good[row], self.reason[row], self.detail[row] = False, reason, f"{reason}: {detail}"

    def rejects(self, listing: Listing) -> pa.Table:
        """REJECTS of all that cannot be used."""
        rows = np.flatnonzero([r is not None for r in self.reason])
        own = {
            "sample_id": listing.table["sample_id"]
            .take(pa.array(rows, pa.int64()))
            .combine_chunks(),
            "split": self.split[rows].tolist(),
            "reason": self.reason[rows].tolist(),
            "detail": self.detail[rows].tolist(),
        }
        return pa.concat_tables([listing.refused, pa.table(own, schema=REJECTS)])


def judge_rows(
    config: AnyDataConfig,
    listing: Listing,
    found: pa.Table,
    keys: list[str],
    names: list[str],
    seed: int,
) -> Verdicts:
    """Who is used, and in which split: what is broken goes, then what has two labels, then copies in other splits, then the tail."""
    verdicts = Verdicts(
        label=pc.index_in(listing.table["class_key"], pa.array(keys, pa.string())).to_numpy(
            zero_copy_only=False
        ),
        split=np.array(listing.table["split"].to_pylist(), object),
        good=np.array(found["reason"].is_null().to_pylist(), bool),
        reason=np.array(found["reason"].to_pylist(), object),
        detail=np.array(found["detail"].to_pylist(), object),
    )
    if isinstance(config, FilesConfig):
        ids = listing.table["sample_id"].to_pylist()
        sha = np.array(found["sha256"].to_pylist(), object)
        _reject_conflicts(verdicts, ids, sha, names)
        _split(
            config, verdicts, ids, sha, np.array(listing.table["group"].to_pylist(), object), seed
        )
        if config.cross_split_duplicates == "exclude":
            part = np.flatnonzero(verdicts.good)
            for i, owner in zip(
                part.tolist(), duplicates(verdicts.split[part], sha[part]), strict=True
            ):
                if owner is not None:
                    verdicts.reject(i, f"also_in_{owner}", "the same bytes are in another split")
        if config.long_tail is not None and config.name != "cifar100_lt":
            _cut_tail(config.long_tail, verdicts, ids, seed)
    return verdicts


def _reject_conflicts(
    verdicts: Verdicts, ids: list[str], sha: NDArray[np.object_], names: list[str]
) -> None:
    """The same bytes under two labels: nobody knows which is right."""
    part = np.flatnonzero(verdicts.good)
    for i, other in zip(
        part.tolist(), conflicts(verdicts.label[part], sha[part]).tolist(), strict=True
    ):
        if other >= 0:
            row = part[other]
            own, theirs = names[verdicts.label[i]], names[verdicts.label[row]]
            verdicts.reject(
                i, TWO_LABELS, f"'{own}' here, and the same bytes are '{theirs}' in {ids[row]}"
            )


def _split(
    config: FilesConfig,
    verdicts: Verdicts,
    ids: list[str],
    sha: NDArray[np.object_],
    group: NDArray[np.object_],
    seed: int,
) -> None:
    """Draws the splits that are open; copies of one image are drawn together."""
    part = np.flatnonzero(verdicts.good)
    copies = {h for h, n in Counter(sha[part].tolist()).items() if n > 1}
    tied = [
        g if g is not None else (h if h in copies else None)
        for g, h in zip(group[part].tolist(), sha[part].tolist(), strict=True)
    ]
    verdicts.split[part] = fill_splits(
        verdicts.split[part],
        verdicts.label[part].astype(np.int64),
        np.array(tied, object),
        [ids[i] for i in part],
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        seed=seed,
    )


def _cut_tail(tail: LongTail, verdicts: Verdicts, ids: list[str], seed: int) -> None:
    train = np.flatnonzero(verdicts.good & (verdicts.split == "train"))
    label, own = verdicts.label[train].astype(np.int64), [ids[i] for i in train]
    keep = long_tail(label, own, imbalance=tail.imbalance, head=tail.head, seed=seed)
    verdicts.good[train[~keep]] = False
