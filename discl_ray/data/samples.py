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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.cluster.map_blocks import map_blocks
from discl_ray.core.ids import stable_id
from discl_ray.core.images import MAX_PIXELS, can_heic
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.schema import SAMPLES
from discl_ray.core.settings import identity
from discl_ray.core.splits import SPLITS, USES, no_image
from discl_ray.core.storage import Store, reference
from discl_ray.data.config import AnyDataConfig, FilesConfig
from discl_ray.data.listing import REJECTS, Listing, Read
from discl_ray.data.names import load_names
from discl_ray.data.root import same_name
from discl_ray.data.scan import SCANNED, scan
from discl_ray.data.verdicts import TWO_LABELS, Verdicts, judge_rows
from discl_ray.data.wording import shown
from discl_ray.errors import DataError, ImageError, IntegrityError
from discl_ray.process.calls import AGAIN

PART = 2_000
"""Rows a task reads and a part file holds."""


READ_AGAIN = "the data is read again"


NAMED = 20
"""Broken files the summary names; all of them are in REJECTED."""


EXAMPLES = 4
"""Files with two labels that it names."""


REJECTED = "rejects.parquet"


RULES = 2
"""Part of the folder's name of data sets in files; another number where others of their images are used."""


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
    notes: tuple[str, ...] = ()
    """What the listing left out, in sentences."""

    def with_images(self, rows: pa.Table) -> pa.Table:
        """Some rows of `table`, in their order, with the bytes of images that are not files."""
        if not rows.num_rows or rows["image"].combine_chunks().field("path").null_count == 0:
            return rows
        wanted = pc.is_in(pc.field("sample_id"), rows["sample_id"].combine_chunks())
        folders = [s for s in SPLITS if s in set(rows["split"].to_pylist())]
        parts = []
        for folder in folders:
            with self.store.reading(
                folder, f"delete {self.store.base} and {AGAIN}, which reads the data again"
            ):
                parts.append(self.store.dataset(folder).to_table(filter=wanted))
        found = pa.concat_tables(parts)
        return found.take(pc.index_in(rows["sample_id"], found["sample_id"].combine_chunks())).cast(
            SAMPLES
        )


def read_samples(
    config: AnyDataConfig, listing: Listing, *, seed: int, run: Store, num_cpus: int | None = None
) -> Samples:
    """The listed data set as SAMPLES under `run`; reads nothing if that was done before.

    Raises DataError if it cannot be trained on: too much of it broken, no training image, fewer than two classes; what cannot be
    used has been written into `rejects.parquet` by then.
    """
    keys = _keys(listing)
    names = _names(config, listing, keys)
    place = _place(config, listing)
    store = run.within(folder_name(config, listing, seed))
    known = _opened(store)
    if known is not None:
        return replace(known, notes=listing.notes)
    found = _scan(listing, num_cpus, _limit(config))
    _check_broken(config, listing, found, store)
    verdicts = judge_rows(config, listing, found, keys, names, seed)
    rejects = verdicts.rejects(listing)
    store.write_table(REJECTED, rejects)
    _check_left(config, verdicts, rejects, names, store)
    table = _used(listing, found, verdicts, names)
    images = pa.array(
        [{"path": reference(place, p)} for p in table["path"].to_pylist()],
        SAMPLES.field("image").type,
    )
    blank = pa.nulls(table.num_rows, SAMPLES.field("image").type)
    _write(
        store,
        table.append_column("image", images if listing.in_files else blank),
        listing,
        num_cpus,
    )
    store.write_json(
        MANIFEST,
        {"classes": names, "keys": keys, "fingerprint": _content(table), "rows": table.num_rows},
    )
    return replace(open_samples(store), notes=listing.notes)


def folder_name(config: AnyDataConfig, listing: Listing, seed: int) -> str:
    """The folder that a listed data set is written to; its images are not opened.

    What is stored holds the files' place, so another place is another folder.
    """
    keys = _keys(listing)
    where = _place(config, listing) if listing.in_files else ""
    rules = [RULES, config.max_megapixels, can_heic()] if isinstance(config, FilesConfig) else []
    decisive = (
        identity(config),
        seed,
        listing.stamp,
        keys,
        _names(config, listing, keys),
        where,
        *rules,
    )
    return f"samples-{stable_id(*decisive)[:8]}"


def _keys(listing: Listing) -> list[str]:
    """The classes' keys by label."""
    return list(listing.classes or sorted(set(listing.table["class_key"].to_pylist())))


def _place(config: AnyDataConfig, listing: Listing) -> str:
    """Where the files lie, as paths and URIs to them begin."""
    return (
        config.root
        if isinstance(config, FilesConfig) and listing.root.local is None
        else listing.root.base
    )


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
    columns = {n: pc.field(n) for n in SAMPLES.names if n != "image"} | {
        "path": pc.field("image", "path")
    }
    parts: list[pa.Table] = []
    for split in SPLITS:
        if store.list(split, ".parquet"):
            with store.reading(split, READ_AGAIN):
                parts.append(store.dataset(split).to_table(columns=columns))
    if not parts:
        raise IntegrityError(f"{store.base}: its images are gone; {READ_AGAIN}")
    table = pa.concat_tables(parts)
    whole = (
        table.num_rows == manifest["rows"] if "rows" in manifest else _content(table) == fingerprint
    )
    if not whole:
        raise IntegrityError(
            f"{store.base}: {table.num_rows} images, others than were written; {READ_AGAIN}"
        )
    empty = pa.nulls(table.num_rows, pa.binary())
    image = pa.StructArray.from_arrays(
        [empty, table["path"].combine_chunks()], fields=list(SAMPLES.field("image").type)
    )
    return Samples(
        store=store,
        table=table.drop(["path"])
        .append_column("image", image)
        .select(SAMPLES.names)
        .cast(SAMPLES),
        classes=classes,
        fingerprint=fingerprint,
        rejects=store.read_table("rejects.parquet", remedy=READ_AGAIN),
    )


def _names(config: AnyDataConfig, listing: Listing, keys: list[str]) -> list[str]:
    """Class names by label: the user's, else the data set's, else the keys."""
    loaded = load_names(config.names) if isinstance(config, FilesConfig) and config.names else {}
    given = {key: same_name(name) for key, name in loaded.items()}
    if unknown := sorted(set(given) - set(keys) - set(listing.names.values())):
        shown = ", ".join(keys[:5])
        raise DataError(
            f"data.names = '{getattr(config, 'names', '')}': no class '{unknown[0]}'; classes are {shown}, …"
        )
    own = [listing.names.get(key, key) for key in keys]
    names = [given.get(key, given.get(name, name)) for key, name in zip(keys, own, strict=True)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"two classes are both called '{twice[0]}'; give them different names with data.names"
        )
    return names


def _blocks(table: pa.Table) -> list[pa.Table]:
    return [table.slice(i, PART).combine_chunks() for i in range(0, table.num_rows, PART)]


def _limit(config: AnyDataConfig) -> int:
    """Pixels that an image may have which is decoded whole."""
    return config.max_megapixels * 10**6 if isinstance(config, FilesConfig) else MAX_PIXELS


def _scan(listing: Listing, num_cpus: int | None, limit: int) -> pa.Table:
    """SCANNED of the whole listing, in its order."""
    numbered = listing.table.append_column("number", pa.array(np.arange(listing.table.num_rows)))
    parts = map_blocks(
        _blocks(numbered), _Scan(listing.root, listing.read, limit), "images read", num_cpus
    )
    empty = SCANNED.empty_table().append_column("number", pa.array([], pa.int64()))
    return pa.concat_tables([empty, *parts]).sort_by("number").drop(["number"]).combine_chunks()


@dataclass(frozen=True)
class _Scan:
    root: Store
    read: Read
    limit: int

    def __call__(self, rows: pa.Table) -> pa.Table:
        return scan(rows, self.root, self.read, limit=self.limit).append_column(
            "number", rows["number"]
        )


def _check_broken(config: AnyDataConfig, listing: Listing, found: pa.Table, store: Store) -> None:
    """Raises DataError if too many images cannot be used, and writes down which."""
    broken = found.filter(found["reason"].is_valid())
    splits = listing.table["split"].filter(found["reason"].is_valid())
    rejects = pa.concat_tables(
        [listing.refused, broken.append_column("split", splits).select(REJECTS.names).cast(REJECTS)]
    )
    bad, total = rejects.num_rows, found.num_rows + listing.refused.num_rows
    allowed = config.max_bad_fraction if isinstance(config, FilesConfig) else 0.0
    if bad <= allowed * total:
        return
    store.write_table(REJECTED, rejects)
    good = set(listing.table["class_key"].filter(found["reason"].is_null()).to_pylist())
    lost = sorted(set(listing.table["class_key"].to_pylist()) - good)
    lines = [
        f"{bad} of {total} images cannot be used, more than data.max_bad_fraction = {allowed:g} allows:",
        *_broken_words(rejects, store),
        *([f"    classes of which no image can be read: {_some(lost)}"] if lost else []),
        *(f"    {note}" for note in listing.notes),
        "mend or remove them, or raise data.max_bad_fraction",
    ]
    raise DataError("\n".join(lines))


def _broken_words(rejects: pa.Table, store: Store) -> list[str]:
    """Each broken image with its reason, only the first NAMED if there are many; and where all of them stand."""
    rows = rejects.slice(0, NAMED).to_pylist()
    lines = [
        f"    {shown(row['sample_id'])}: {shown(row['detail'] or row['reason'], 240)}"
        for row in rows
    ]
    if rejects.num_rows > NAMED:
        counts = ", ".join(
            f"{n} {reason}" for reason, n in Counter(rejects["reason"].to_pylist()).most_common()
        )
        lines.append(f"    and {rejects.num_rows - NAMED} more ({counts})")
    return [*lines, f"    the whole list: {store.path(REJECTED)}"]


def _check_left(
    config: AnyDataConfig, verdicts: Verdicts, rejects: pa.Table, names: list[str], store: Store
) -> None:
    """Raises DataError if what is left cannot be trained on."""
    two = _conflict_words(rejects, store)
    if two and isinstance(config, FilesConfig) and config.conflicts == "refuse":
        raise DataError(
            "\n".join(
                [*two, "data.conflicts = refuse: take the wrong ones away, or data.conflicts=drop"]
            ).lstrip()
        )
    wrong = ""
    if not (verdicts.good & (verdicts.split == "train")).any():
        wrong = "no training image is left; look at the splits and at what is broken"
    elif len(names) < 2:
        wrong = f"only one class ('{names[0]}'); at least two are needed to tell apart"
    if wrong:
        others = rejects.filter(pc.not_equal(rejects["reason"], TWO_LABELS))
        lines = [*two, *(_broken_words(others, store) if others.num_rows else [])]
        raise DataError("\n".join([f"data.name = {config.name}: {wrong}", *lines]))


def _conflict_words(rejects: pa.Table, store: Store) -> list[str]:
    """What has the same bytes under two classes, with some examples."""
    rows = rejects.filter(pc.equal(rejects["reason"], TWO_LABELS))
    if not rows.num_rows:
        return []
    lines = [
        f"    {shown(row['sample_id'])}: {shown(row['detail'], 240)}"
        for row in rows.slice(0, EXAMPLES).to_pylist()
    ]
    more = (
        [f"    and {rows.num_rows - EXAMPLES} more in {store.path(REJECTED)}"]
        if rows.num_rows > EXAMPLES
        else []
    )
    return [
        f"  {rows.num_rows} files have the same bytes under two classes and are left out of every split:",
        *lines,
        *more,
    ]


def _used(listing: Listing, found: pa.Table, verdicts: Verdicts, names: list[str]) -> pa.Table:
    """SAMPLES without images of what is used, and LISTING's `path` and what `read` needs."""
    used = pa.array(np.flatnonzero(verdicts.good))
    extra = [c for c in listing.table.column_names if c not in (*SAMPLES.names, "class_key")]
    label = pa.array(verdicts.label[verdicts.good], pa.int32())
    columns: dict[str, Any] = {
        "sample_id": listing.table["sample_id"].take(used),
        "label": label,
        "class_name": pa.array(names, pa.string()).take(label),
        "split": pa.array(verdicts.split[verdicts.good].tolist(), pa.string()),
        "domain": listing.table["domain"].take(used),
        "group": listing.table["group"].take(used),
        **{name: found[name].take(used) for name in ("width", "height", "sha256")},
        **{name: listing.table[name].take(used) for name in extra},
    }
    return pa.table(columns)


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
    for done in map_blocks(
        blocks, _WriteParts(store, listing.root, listing.read), "images copied", num_cpus
    ):
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
                    raise DataError(
                        f"{name}: an image that was read a moment ago cannot be read now ({item}); run it again"
                    )
                data.append({"bytes": item})
            at = part.column_names.index("image")
            whole = part.set_column(
                at, SAMPLES.field("image"), pa.array(data, SAMPLES.field("image").type)
            )
            self.store.write_table(name, whole.select(SAMPLES.names).cast(SAMPLES))
        return rows.select(["sample_id"])


def _content(table: pa.Table) -> str:
    """What the samples are, wherever they lie and however they came there."""
    names = ("sample_id", "sha256", "split", "label", "class_name", "domain", "group")
    rows = table.select(names).sort_by("sample_id")
    return stable_id({name: rows[name].to_pylist() for name in names})


def summarize_samples(samples: Samples) -> str:
    """Images and classes by split, what is broken by name, and which classes are too small to be judged, in words."""
    table, reasons = samples.table, samples.rejects["reason"]
    counts = {
        s: Counter(table.filter(pc.equal(table["split"], s))["label"].to_pylist()) for s in SPLITS
    }
    sizes = ", ".join(f"{s} {sum(c.values())}" for s, c in counts.items())
    lines = [
        f"  {len(samples.classes)} classes · images: {sizes}",
        *(f"  {note}" for note in samples.notes),
    ]
    copied = pc.starts_with(reasons, "also_in_")
    broken = samples.rejects.filter(pc.invert(pc.or_(copied, pc.equal(reasons, TWO_LABELS))))
    if broken.num_rows:
        lines += [
            f"  {broken.num_rows} images cannot be used:",
            *_broken_words(broken, samples.store),
        ]
    lines += _conflict_words(samples.rejects, samples.store)
    if copies := pc.sum(copied).as_py():
        lines.append(
            f"  {copies} images left out because the same bytes are in another split ({REJECTED})"
        )
    for split, what in USES.items():
        lacking = [name for label, name in enumerate(samples.classes) if not counts[split][label]]
        if not counts[split]:
            lines.append(f"  {no_image(split)}")
        elif lacking:
            lines.append(
                f"  {len(lacking)} classes without an image to {what} ({split}): {_some(lacking)}"
            )
    return "\n".join(lines)


def _some(names: list[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
