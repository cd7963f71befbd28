"""A data set becomes SAMPLES on disk: listed, read in parallel, split, written.

    <run>/samples-<hash8>/{train,val,test}/part-*.parquet    SAMPLES: a path for images in files,
                                                             bytes for the others
    <run>/samples-<hash8>/rejects.parquet                    what cannot be used, and why
    <run>/samples-<hash8>/MANIFEST.json                      classes, counts, and the fingerprint
                                                             of the content

The folder is named by the configuration and by names, sizes and dates of the files, so what has not
changed is not read again. What is made from the samples is named by their content. Large data sets
are read by Ray Data, small ones in this process.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from discl_ray.cluster.map_blocks import map_blocks
from discl_ray.core.columns import (
    Column,
    all_true,
    is_valid,
    joined,
    matches,
    member,
    negate,
    replace_where,
    rows_where,
    sort_indices,
)
from discl_ray.core.ids import id_of_text, stable_id
from discl_ray.core.images import MAX_PIXELS, can_heic
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.schema import SAMPLES
from discl_ray.core.settings import identity
from discl_ray.core.splits import SPLITS
from discl_ray.core.storage import Store, parquet_bytes, reference
from discl_ray.data.config import AnyDataConfig, FilesConfig
from discl_ray.data.listing import Listing, Read, set_column
from discl_ray.data.names import class_names
from discl_ray.data.rejects import REJECTED, check_bad_fraction, check_trainable
from discl_ray.data.sample_images import locate, read_images
from discl_ray.data.scan import SCANNED, scan
from discl_ray.data.splits import split_names
from discl_ray.data.verdicts import Verdicts, judge_rows
from discl_ray.errors import DataError, ImageError, IntegrityError

log = logging.getLogger(__name__)

PART = 2_000
"""Rows that a task reads, and that a part file holds with their images."""

PATHS = 20_000
"""Rows that a part file holds without images."""

JSON_ROWS = 50_000
"""Rows that are text at once while the content is hashed."""

PLAIN_NAME = "name-of-a-file"
"""Stands for a name that a URI holds as it is."""

READ_AGAIN = "the data is read again"
"""What a damaged folder of samples leads to."""

RULES = 2
"""Part of the folder's name of data sets in files; raised when other images of theirs are used."""

IMAGE = SAMPLES.field("image")
"""A struct of bytes and path, of which at most one is set, as `datasets` stores images."""

CONTENT = ("sample_id", "sha256", "split", "label", "class_name", "domain", "group")
"""Columns that the fingerprint covers: what the samples are, wherever they lie."""


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
    """Hash of the content, wherever that lies."""
    rejects: pa.Table
    """REJECTS: what cannot be used."""
    notes: tuple[str, ...] = ()
    """What the listing left out, in sentences."""

    def located(self, rows: pa.Table) -> pa.Table:
        """LOCATED of some rows of `table`, in their order: what `read_images` needs in a worker."""
        return locate(self.store, rows)

    def with_images(self, rows: pa.Table) -> pa.Table:
        """Some rows of `table`, in their order, with the bytes of images that are not files."""
        return read_images(self.store, self.located(rows))


def read_samples(
    config: AnyDataConfig, listing: Listing, *, seed: int, run: Store, num_cpus: int | None = None
) -> Samples:
    """The listed data set as SAMPLES under `run`; reads nothing if that was done before.

    Raises DataError if it cannot be trained on: too much of it broken, no training image, fewer
    than two classes. What cannot be used is in `rejects.parquet` by then.
    """
    names = class_names(config, listing)
    store = run.within(folder_name(config, listing, seed))
    written = _opened(store)
    if written is None:
        _read(config, listing, names, seed, store, num_cpus)
        written = open_samples(store)
    return replace(written, notes=listing.notes)


def _read(
    config: AnyDataConfig,
    listing: Listing,
    names: list[str],
    seed: int,
    store: Store,
    num_cpus: int | None,
) -> None:
    """Reads every image and writes what is used; raises errors like `read_samples`."""
    found = _scan_all(listing, num_cpus, _pixel_limit(config))
    check_bad_fraction(config, listing, found, store)
    write_scanned(config, listing, found, names, seed=seed, store=store, num_cpus=num_cpus)


def write_scanned(
    config: AnyDataConfig,
    listing: Listing,
    found: pa.Table,
    names: list[str],
    *,
    seed: int,
    store: Store,
    num_cpus: int | None = None,
) -> None:
    """Writes what is used of a data set whose images were read: `found` is SCANNED of the listing.

    `names` are the class names by label. Raises DataError if what is left cannot be trained on.
    """
    verdicts = judge_rows(config, listing, found, names, seed)
    rejects = verdicts.rejects(listing)
    store.write_table(REJECTED, rejects)
    check_trainable(config, verdicts, rejects, names, store)
    table = _used(config, listing, found, verdicts, names)
    _write(store, table, listing, num_cpus)
    manifest = {
        "classes": names,
        "keys": listing.keys,
        "fingerprint": _fingerprint(table),
        "rows": table.num_rows,
    }
    store.write_json(MANIFEST, manifest)


def folder_name(config: AnyDataConfig, listing: Listing, seed: int) -> str:
    """The folder that a listed data set is written to; its images are not opened.

    What is stored holds the files' place, so another place is another folder.
    """
    decisive: list[Any] = [
        identity(config),
        seed,
        listing.stamp,
        listing.keys,
        class_names(config, listing),
        _place(config, listing) if listing.in_files else "",
    ]
    if isinstance(config, FilesConfig):
        decisive += [RULES, config.max_megapixels, can_heic()]
    return f"samples-{stable_id(*decisive)[:8]}"


def _place(config: AnyDataConfig, listing: Listing) -> str:
    """How paths and URIs of the files begin."""
    if isinstance(config, FilesConfig) and listing.root.local is None:
        return config.root
    return listing.root.base


def _opened(store: Store) -> Samples | None:
    """Samples that were written before; None if there are none, or they are damaged."""
    if not store.exists(MANIFEST):
        return None
    try:
        return open_samples(store)
    except IntegrityError as error:
        log.info("%s", error)  # which says that the data is read again
        return None


def open_samples(store: Store) -> Samples:
    """What `read_samples` wrote.

    Raises IntegrityError if part of it is gone or damaged.
    """
    with store.reading(MANIFEST, READ_AGAIN):
        manifest = store.read_json(MANIFEST, READ_AGAIN)
        classes = tuple(manifest["classes"])
        fingerprint = str(manifest["fingerprint"])
    table = _read_without_bytes(store)
    if not _is_whole(table, manifest):
        found = f"{table.num_rows} images, others than were written"
        raise IntegrityError(f"{store.location()}: {found}; {READ_AGAIN}")
    return Samples(
        store=store,
        table=table,
        classes=classes,
        fingerprint=fingerprint,
        rejects=store.read_table(REJECTED, remedy=READ_AGAIN),
    )


def _is_whole(table: pa.Table, manifest: dict[str, Any]) -> bool:
    """Whether as many images are left as were written."""
    if "rows" in manifest:
        return table.num_rows == manifest["rows"]
    return _fingerprint(table) == manifest["fingerprint"]  # written by an old version


def _read_without_bytes(store: Store) -> pa.Table:
    """SAMPLES of all splits; the bytes of images are not read."""
    # a name with a dot is a field of a struct
    columns = [*(name for name in SAMPLES.names if name != "image"), "image.path"]
    parts: list[pa.Table] = []
    for split in SPLITS:
        for name in store.list(split, ".parquet"):
            part = store.read_table(name, columns, READ_AGAIN)
            paths = member(part["image"], "path")
            parts.append(_samples_of(set_column(part, "image", image_column(paths))))
    if not parts:
        raise IntegrityError(f"{store.location()}: its images are gone; {READ_AGAIN}")
    return pa.concat_tables(parts).combine_chunks()


def image_column(paths: Column) -> pa.Array:
    """Images that are paths and have no bytes."""
    empty = pa.nulls(len(paths), pa.binary())
    if isinstance(paths, pa.ChunkedArray):
        paths = paths.combine_chunks()
    return pa.StructArray.from_arrays([empty, paths], fields=list(IMAGE.type))


def _pixel_limit(config: AnyDataConfig) -> int:
    """Pixels of the largest image that is decoded whole."""
    if isinstance(config, FilesConfig):
        return config.max_megapixels * 10**6
    return MAX_PIXELS


def _scan_all(listing: Listing, num_cpus: int | None, limit: int) -> pa.Table:
    """SCANNED of the whole listing, in its order."""
    numbers = np.arange(listing.table.num_rows)
    numbered = listing.table.append_column("number", pa.array(numbers))
    blocks = _blocks(numbered, PART)
    work = _Scan(listing.root, listing.read, limit)
    parts = list(map_blocks(blocks, work, "images read", num_cpus))
    if not parts:
        return SCANNED.empty_table()
    # blocks come in any order
    scanned = pa.concat_tables(parts).sort_by("number")
    return scanned.drop(["number"]).combine_chunks()


def _blocks(table: pa.Table, size: int) -> list[pa.Table]:
    """A table in blocks of at most `size` rows."""
    starts = range(0, table.num_rows, size)
    return [table.slice(start, size).combine_chunks() for start in starts]


@dataclass(frozen=True)
class _Scan:
    """Scans a block; a value that travels to Ray's workers."""

    root: Store
    read: Read
    limit: int
    """Pixels, as for `scan`."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        scanned = scan(rows, self.root, self.read, limit=self.limit)
        return scanned.append_column("number", rows["number"])


def _used(
    config: AnyDataConfig, listing: Listing, found: pa.Table, verdicts: Verdicts, names: list[str]
) -> pa.Table:
    """SAMPLES of what is used, without bytes, and the columns that `listing.read` needs."""
    good = np.flatnonzero(verdicts.good)
    used = pa.array(good)
    listed = listing.table.take(used)
    scanned = found.take(used)
    label = pa.array(verdicts.label[good], pa.int32())
    columns: dict[str, Any] = {
        "sample_id": listed["sample_id"],
        "label": label,
        "class_name": pa.array(names, pa.string()).take(label),
        "split": split_names(verdicts.split[good]),
        "domain": listed["domain"],
        "group": listed["group"],
        "width": scanned["width"],
        "height": scanned["height"],
        "sha256": scanned["sha256"],
        "image": pa.nulls(len(good), IMAGE.type),
    }
    if listing.in_files:
        paths = references(_place(config, listing), listed["path"])
        columns["image"] = image_column(paths)
    for name in listed.column_names:
        if name not in columns and name != "class_key":
            columns[name] = listed[name]
    return pa.table(columns)


def references(location: str, names: Column) -> Column:
    """`reference` of many files in a folder."""
    is_uri = "://" in location
    # what is not plain is escaped in a URI, name by name
    plain = negate(matches(names, "[^A-Za-z0-9_.~/-]")) if is_uri else is_valid(names)
    begin, _, end = reference(location, PLAIN_NAME).rpartition(PLAIN_NAME)
    whole = joined([begin, names, end])
    if all_true(plain):
        return whole
    others = [reference(location, name) for name in names.filter(negate(plain)).to_pylist()]
    return replace_where(whole, negate(plain), pa.array(others, pa.string()))


def _write(store: Store, table: pa.Table, listing: Listing, num_cpus: int | None) -> None:
    """SAMPLES by split; images that are not files are read again, part by part."""
    if listing.in_files:
        for name, rows in _parts(table, PATHS):
            # no image is read from the file, so its rows need not be apart
            store.write(name, parquet_bytes(_samples_of(rows), [0]))
        return
    blocks: list[pa.Table] = []
    for name, rows in _parts(table, PART):
        names = pa.repeat(name, rows.num_rows)
        block = rows.append_column("part", names)
        blocks.append(block)
    work = _WriteParts(store, listing.root, listing.read)
    for _ in map_blocks(blocks, work, "images copied", num_cpus):
        pass  # what a block returns is only for progress


def _parts(table: pa.Table, size: int) -> Iterator[tuple[str, pa.Table]]:
    """(name, rows) of each part file, of at most `size` rows."""
    for split in SPLITS:
        rows = rows_where(table, split=split)
        for number, block in enumerate(_blocks(rows, size)):
            yield f"{split}/part-{number:05d}.parquet", block


def _samples_of(rows: pa.Table) -> pa.Table:
    """SAMPLES without the columns that were needed to read the images."""
    return rows.select(SAMPLES.names).cast(SAMPLES)


@dataclass(frozen=True)
class _WriteParts:
    """Writes the parts of a block with their images; a value that travels to Ray's workers."""

    store: Store
    root: Store
    read: Read

    def __call__(self, rows: pa.Table) -> pa.Table:
        for name in rows["part"].unique().to_pylist():
            part = rows_where(rows, part=name)
            images = self._images(name, part)
            column = pa.array(images, IMAGE.type)
            whole = set_column(part, "image", column)
            self.store.write_table(name, _samples_of(whole))
        return rows.select(["sample_id"])

    def _images(self, name: str, part: pa.Table) -> list[dict[str, bytes]]:
        """The bytes of a part's images. Raises DataError if one can no longer be read."""
        images: list[dict[str, bytes]] = []
        for data in self.read(self.root, part):
            if isinstance(data, ImageError):
                gone = f"an image that was read a moment ago cannot be read now ({data})"
                raise DataError(f"{name}: {gone}; run it again")
            images.append({"bytes": data})
        return images


def _fingerprint(table: pa.Table) -> str:
    """A hash of what the samples are, wherever they lie and in whatever order."""
    return id_of_text(_content_json(table))


def _content_json(table: pa.Table) -> Iterator[str]:
    """JSON of {column: values} of CONTENT, by name and by `sample_id`, in pieces."""
    order = sort_indices(table, ("sample_id", "ascending"))
    before = "{"
    for name in sorted(CONTENT):
        column = table[name].combine_chunks()
        yield f'{before}"{name}":['
        for start in range(0, len(order), JSON_ROWS):
            values = column.take(order.slice(start, JSON_ROWS)).to_pylist()
            listed = json.dumps(values, separators=(",", ":"))
            more = "," if start else ""
            yield more + listed[1:-1]  # without its brackets
        yield "]"
        before = ","
    yield "}"
