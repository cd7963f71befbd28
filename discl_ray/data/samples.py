# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""A data set becomes SAMPLES on disk: listed, read in parallel, split, written. Large ones by Ray Data, small ones here.

    <run>/samples-<hash8>/{train,val,test}/part-*.parquet    SAMPLES: a path for images in files, bytes for the others
    <run>/samples-<hash8>/rejects.parquet                    what cannot be used, with the reason
    <run>/samples-<hash8>/MANIFEST.json                      classes, counts, and the fingerprint of the content

The folder is named by the configuration and by names, sizes and dates of the files, so what has not changed is not read again.
What is made from the samples is named by their content.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from discl_ray.core.ids import stable_id
from discl_ray.core.schema import SAMPLES
from discl_ray.core.settings import identity
from discl_ray.core.storage import Store
from discl_ray.data.config import AnyDataConfig, FilesConfig
from discl_ray.data.listing import Listing, Read
from discl_ray.data.names import load_names
from discl_ray.data.scan import SCANNED, scan
from discl_ray.data.splits import SPLITS, duplicates, fill_splits, long_tail
from discl_ray.errors import DataError, ImageError, IntegrityError
from discl_ray.parallel import map_blocks
from discl_ray.run import MANIFEST

PART = 2_000
"""Rows a task reads and a part file holds."""

READ_AGAIN = "the data is read again"

NAMED = 20
"""Broken files the summary names; all of them are in rejects.parquet."""

REJECTS = pa.schema([("sample_id", pa.string()), ("split", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A data set that has been read."""

    store: Store
    """Its folder, `samples-<hash8>`."""
    table: pa.Table
    """SAMPLES of all splits without bytes: `image` has a path, or is empty; see `with_images`."""
    classes: tuple[str, ...]
    """Names by label."""
    fingerprint: str
    """Hash of what it holds, wherever that lies."""
    rejects: pa.Table
    """REJECTS: what cannot be used."""

    def with_images(self, rows: pa.Table) -> pa.Table:
        """Some rows of `table`, in their order, with the bytes of images that are not files."""
        if not rows.num_rows or rows["image"].combine_chunks().field("path").null_count == 0:
            return rows
        wanted = pc.is_in(pc.field("sample_id"), rows["sample_id"].combine_chunks())
        folders = [s for s in SPLITS if s in set(rows["split"].to_pylist())]
        parts = []
        for folder in folders:
            with self.store.reading(folder, f"delete {self.store.base} and run the command again, which reads the data again"):
                dataset = pads.dataset(self.store.path(folder), filesystem=self.store.filesystem, format="parquet")
                parts.append(dataset.to_table(filter=wanted))
        found = pa.concat_tables(parts)
        return found.take(pc.index_in(rows["sample_id"], found["sample_id"].combine_chunks())).cast(SAMPLES)


def read_samples(config: AnyDataConfig, listing: Listing, *, seed: int, run: Store, num_cpus: int | None = None) -> Samples:
    """The listed data set as SAMPLES under `run`; reads nothing if that was done before.

    Raises DataError if it cannot be trained on: too much of it broken, no training image, fewer than two classes.
    """
    keys = list(listing.classes or sorted(set(listing.table["class_key"].to_pylist())))
    names = _names(config, listing, keys)
    place = config.root if isinstance(config, FilesConfig) and "://" in config.root else listing.root.base
    where = place if listing.in_files else ""  # what is stored holds the files' place, so another place is another folder
    store = run.within(f"samples-{stable_id(identity(config), seed, listing.stamp, keys, names, where)[:8]}")
    known = _opened(store)
    if known is not None:
        return known
    found = _scan(listing, num_cpus)
    _check_broken(config, listing, found)
    table, rejects = _decide(config, listing, found, keys, names, seed)
    images = pa.array([{"path": f"{place.rstrip('/')}/{p}"} for p in table["path"].to_pylist()], SAMPLES.field("image").type)
    blank = pa.nulls(table.num_rows, SAMPLES.field("image").type)
    _write(store, table.append_column("image", images if listing.in_files else blank), listing, num_cpus)
    store.write_table("rejects.parquet", rejects)
    store.write_json(MANIFEST, {"classes": names, "keys": keys, "fingerprint": _content(table), "rows": table.num_rows})
    return open_samples(store)


def _opened(store: Store) -> Samples | None:
    """Samples that have been written before; None if there are none, or they are damaged, and are read again."""
    if not store.exists(MANIFEST):
        return None
    try:
        return open_samples(store)
    except IntegrityError as error:
        print(f"  {error}", flush=True)
        return None


def open_samples(store: Store) -> Samples:
    """What `read_samples` wrote.

    Raises IntegrityError if part of it is gone or damaged.
    """
    with store.reading(MANIFEST, READ_AGAIN):
        manifest = store.read_json(MANIFEST, READ_AGAIN)
        classes, fingerprint = tuple(manifest["classes"]), str(manifest["fingerprint"])
    columns = {n: pc.field(n) for n in SAMPLES.names if n != "image"} | {"path": pc.field("image", "path")}
    parts: list[pa.Table] = []
    for split in SPLITS:
        if store.list(split, ".parquet"):
            with store.reading(split, READ_AGAIN):
                dataset = pads.dataset(store.path(split), filesystem=store.filesystem, format="parquet")
                parts.append(dataset.to_table(columns=columns))
    if not parts:
        raise IntegrityError(f"{store.base}: its images are gone; {READ_AGAIN}")
    table = pa.concat_tables(parts)
    whole = table.num_rows == manifest["rows"] if "rows" in manifest else _content(table) == fingerprint
    if not whole:
        raise IntegrityError(f"{store.base}: {table.num_rows} images, others than were written; {READ_AGAIN}")
    empty = pa.nulls(table.num_rows, pa.binary())
    image = pa.StructArray.from_arrays([empty, table["path"].combine_chunks()], fields=list(SAMPLES.field("image").type))
    return Samples(
        store=store,
        table=table.drop(["path"]).append_column("image", image).select(SAMPLES.names).cast(SAMPLES),
        classes=classes,
        fingerprint=fingerprint,
        rejects=store.read_table("rejects.parquet", remedy=READ_AGAIN),
    )


def _names(config: AnyDataConfig, listing: Listing, keys: list[str]) -> list[str]:
    """Class names by label: the user's, else the data set's, else the keys."""
    given = load_names(config.names) if isinstance(config, FilesConfig) and config.names else {}
    if unknown := sorted(set(given) - set(keys) - set(listing.names.values())):
        shown = ", ".join(keys[:5])
        raise DataError(f"data.names = '{getattr(config, 'names', '')}': no class '{unknown[0]}'; classes are {shown}, …")
    own = [listing.names.get(key, key) for key in keys]
    names = [given.get(key, given.get(name, name)) for key, name in zip(keys, own, strict=True)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"two classes are both called '{twice[0]}'; give them different names with data.names")
    return names


def _blocks(table: pa.Table) -> list[pa.Table]:
    return [table.slice(i, PART).combine_chunks() for i in range(0, table.num_rows, PART)]


def _scan(listing: Listing, num_cpus: int | None) -> pa.Table:
    """SCANNED of the whole listing, in its order."""
    numbered = listing.table.append_column("number", pa.array(np.arange(listing.table.num_rows)))
    parts = map_blocks(_blocks(numbered), _Scan(listing.root, listing.read), "images read", num_cpus)
    empty = SCANNED.empty_table().append_column("number", pa.array([], pa.int64()))
    return pa.concat_tables([empty, *parts]).sort_by("number").drop(["number"]).combine_chunks()


@dataclass(frozen=True)
class _Scan:
    root: Store
    read: Read

    def __call__(self, rows: pa.Table) -> pa.Table:
        return scan(rows, self.root, self.read).append_column("number", rows["number"])


def _check_broken(config: AnyDataConfig, listing: Listing, found: pa.Table) -> None:
    bad = found.num_rows - found["reason"].null_count
    allowed = config.max_bad_fraction if isinstance(config, FilesConfig) else 0.0
    if bad > allowed * found.num_rows:
        raise DataError(
            f"{bad} of {found.num_rows} images cannot be used, more than data.max_bad_fraction = {allowed:g} allows:\n"
            f"{_broken_words(found)}\nmend or remove them, or raise data.max_bad_fraction"
        )


def _broken_words(rejects: pa.Table) -> str:
    """Each broken image with its reason; only the first NAMED if there are many."""
    broken = [row for row in rejects.select(["sample_id", "reason"]).to_pylist() if row["reason"]]
    lines = [f"    {row['sample_id']}: {row['reason']}" for row in broken[:NAMED]]
    return "\n".join([*lines, *([f"    and {len(broken) - NAMED} more, in rejects.parquet"] if len(broken) > NAMED else [])])


def _decide(
    config: AnyDataConfig, listing: Listing, found: pa.Table, keys: list[str], names: list[str], seed: int
) -> tuple[pa.Table, pa.Table]:
    """The rows that are used (SAMPLES without images, and LISTING's `path` and what `read` needs), and REJECTS."""
    label = pc.index_in(listing.table["class_key"], pa.array(keys, pa.string())).to_numpy(zero_copy_only=False)
    ids = listing.table["sample_id"].to_pylist()
    split = np.array(listing.table["split"].to_pylist(), object)
    good = np.array(found["reason"].is_null().to_pylist(), bool)
    reason = np.array(found["reason"].to_pylist(), object)
    detail = np.array(found["detail"].to_pylist(), object)
    if isinstance(config, FilesConfig):
        part = np.flatnonzero(good)
        group = np.array(listing.table["group"].to_pylist(), object)[part]
        # copies of one image are drawn together
        sha = np.array(found["sha256"].to_pylist(), object)
        copies = {h for h, n in Counter(sha[part].tolist()).items() if n > 1}
        group = np.array(
            [g if g is not None else (h if h in copies else None) for g, h in zip(group, sha[part], strict=True)], object
        )
        split[part] = fill_splits(
            split[part],
            label[part].astype(np.int64),
            group,
            [ids[i] for i in part],
            val_fraction=config.val_fraction,
            test_fraction=config.test_fraction,
            seed=seed,
        )
        if config.cross_split_duplicates == "exclude":
            kept_by = duplicates(split[part], sha[part])
            for i, owner in zip(part, kept_by, strict=True):
                if owner is not None:
                    good[i], reason[i], detail[i] = False, f"also_in_{owner}", "the same bytes are in another split"
        if config.long_tail is not None and config.name != "cifar100_lt":
            train = np.flatnonzero(good & (split == "train"))
            keep = long_tail(
                label[train].astype(np.int64),
                [ids[i] for i in train],
                imbalance=config.long_tail.imbalance,
                head=config.long_tail.head,
                seed=seed,
            )
            good[train[~keep]] = False
    if not (good & (split == "train")).any():
        raise DataError(f"data.name = {config.name}: no training image is left; look at the splits and at what is broken")
    if len(keys) < 2:
        raise DataError(f"data.name = {config.name}: only one class ('{names[0]}'); at least two are needed to tell apart")
    used = pa.array(np.flatnonzero(good))
    extra = [c for c in listing.table.column_names if c not in (*SAMPLES.names, "class_key")]
    label_ = pa.array(label[good], pa.int32())
    columns: dict[str, Any] = {
        "sample_id": listing.table["sample_id"].take(used),
        "label": label_,
        "class_name": pa.array(names, pa.string()).take(label_),
        "split": pa.array(split[good].tolist(), pa.string()),
        "domain": listing.table["domain"].take(used),
        "group": listing.table["group"].take(used),
        **{name: found[name].take(used) for name in ("width", "height", "sha256")},
        **{name: listing.table[name].take(used) for name in extra},
    }
    rejected = np.flatnonzero([r is not None for r in reason])
    rejects = {
        "sample_id": [ids[i] for i in rejected],
        "split": split[rejected].tolist(),
        "reason": reason[rejected].tolist(),
        "detail": detail[rejected].tolist(),
    }
    return pa.table(columns), pa.table(rejects, schema=REJECTS)


def _write(store: Store, table: pa.Table, listing: Listing, num_cpus: int | None) -> None:
    """SAMPLES by split; bytes are read again where images are not files, part by part."""
    blocks = []
    for split in SPLITS:
        for number, rows in enumerate(_blocks(table.filter(pc.equal(table["split"], split)))):
            name = f"{split}/part-{number:05d}.parquet"
            blocks.append(rows.append_column("part", pa.array([name] * rows.num_rows, pa.string())))
    if listing.in_files:
        for rows in blocks:
            store.write_table(rows["part"][0].as_py(), rows.select(SAMPLES.names).cast(SAMPLES))
        return
    for done in map_blocks(blocks, _WriteParts(store, listing.root, listing.read), "images copied", num_cpus):
        del done


@dataclass(frozen=True)
class _WriteParts:
    store: Store
    root: Store
    read: Read

    def __call__(self, rows: pa.Table) -> pa.Table:
        for name in rows["part"].unique().to_pylist():
            part = rows.filter(pc.equal(rows["part"], name))
            data = []
            for item in self.read(self.root, part):
                if isinstance(item, ImageError):
                    raise DataError(f"{name}: an image that was read a moment ago cannot be read now ({item}); run it again")
                data.append({"bytes": item})
            at = part.column_names.index("image")
            whole = part.set_column(at, SAMPLES.field("image"), pa.array(data, SAMPLES.field("image").type))
            self.store.write_table(name, whole.select(SAMPLES.names).cast(SAMPLES))
        return rows.select(["sample_id"])


def _content(table: pa.Table) -> str:
    """What the samples are, wherever they lie and however they came there."""
    names = ("sample_id", "sha256", "split", "label", "class_name", "domain", "group")
    rows = table.select(names).sort_by("sample_id")
    return stable_id({name: rows[name].to_pylist() for name in names})


def summarize_samples(samples: Samples) -> str:
    """Images and classes by split, what is broken by name, and which classes are too small to be judged, in words."""
    table = samples.table
    counts = {s: Counter(table.filter(pc.equal(table["split"], s))["label"].to_pylist()) for s in SPLITS}
    sizes = ", ".join(f"{s} {sum(c.values())}" for s, c in counts.items())
    lines = [f"  {len(samples.classes)} classes · images: {sizes}"]
    broken = samples.rejects.filter(pc.invert(pc.starts_with(samples.rejects["reason"], "also_in_")))
    if broken.num_rows:
        lines += [f"  {broken.num_rows} images cannot be used:", _broken_words(broken)]
    if copies := samples.rejects.num_rows - broken.num_rows:
        lines.append(f"  {copies} images left out because the same bytes are in another split (rejects.parquet)")
    for split, what in (("train", "train on"), ("val", "tune on"), ("test", "judge by")):
        lacking = [name for label, name in enumerate(samples.classes) if not counts[split][label]]
        if lacking and counts[split]:
            lines.append(f"  {len(lacking)} classes without an image to {what} ({split}): {_some(lacking)}")
    return "\n".join(lines)


def _some(names: list[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
