"""Readers from outside the package: what they list is checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import cast

import pyarrow as pa

from discl_ray.core import outside
from discl_ray.core.columns import duplicates
from discl_ray.core.ids import stable_id
from discl_ray.core.splits import SPLITS
from discl_ray.core.storage import Store
from discl_ray.data.config import AnyDataConfig
from discl_ray.data.listing import LISTING, Listing, Read
from discl_ray.data.wording import shown
from discl_ray.errors import DataError, ImageError


def list_outside(config: AnyDataConfig, seed: int) -> Listing:
    """The listing of a reader of the user's own: `(OutsideConfig, seed) -> Listing`.

    Its stamp covers the file that the reader is in: an edited reader lists anew.
    Raises ConfigError if there is no such reader or it raises something, DataError if it does not
    give a Listing.
    """
    named = f"data.name = '{config.name}'"
    reader = outside.READERS.load(config.name)
    with outside.calling(named, reader):
        found = reader(config, seed)
    if not isinstance(found, Listing):
        raise DataError(
            f"{named}: returned a {type(found).__name__}; a discl_ray.Listing is needed"
        )
    _check(found, named)
    stamp = stable_id(found.stamp, outside.READERS.fingerprint(config.name))
    return replace(found, stamp=stamp, read=_CheckedRead(f"{named}: its Listing.read", found.read))


@dataclass(frozen=True)
class _CheckedRead:
    """`Listing.read` of a reader from outside, checked; a value that travels to Ray's workers."""

    named: str
    read: Read

    def __call__(self, root: Store, rows: pa.Table) -> Iterator[bytes | ImageError]:
        """What it gives for each row.

        Raises ConfigError if it raises something, DataError if it gives something else.
        """
        count = 0
        with outside.calling(self.named, self.read):
            contents: object = self.read(root, rows)
            if not isinstance(contents, Iterable):
                raise self._unlike(f"returned a {type(contents).__name__}")
            for data in cast("Iterable[object]", contents):
                count += 1
                if count > rows.num_rows:
                    raise self._unlike(f"gave more than {rows.num_rows}")
                if isinstance(data, bytearray | memoryview):
                    yield bytes(data)
                elif isinstance(data, bytes | ImageError):
                    yield data
                else:
                    raise self._unlike(f"gave a {type(data).__name__}")
        if count < rows.num_rows:
            raise self._unlike(f"gave {count} for {rows.num_rows} rows")

    def _unlike(self, what: str) -> DataError:
        needed = "bytes or a discl_ray.errors.ImageError for each row are needed"
        return DataError(f"{self.named}: {what}; {needed}")


def _check(listing: Listing, named: str) -> None:
    """Raises DataError unless the table is a LISTING with ids and classes in all rows."""
    for field in LISTING:
        if field.name not in listing.table.column_names:
            raise DataError(f"{named}: its table has no column '{field.name}'; see listing_table")
        kind = listing.table.schema.field(field.name).type
        if kind != field.type:
            raise DataError(f"{named}: column '{field.name}' is {kind}; {field.type} is needed")
    for column in ("sample_id", "class_key"):
        if listing.table[column].null_count:
            raise DataError(f"{named}: a row has no {column}")
    repeated = duplicates(listing.table["sample_id"])
    if len(repeated):
        raise DataError(f"{named}: sample_id '{shown(repeated[0].as_py())}' is duplicated")
    words = listing.table["split"].unique().drop_null().to_pylist()
    unknown = [word for word in words if word not in SPLITS]
    if unknown:
        allowed = ", ".join(SPLITS)
        raise DataError(f"{named}: split '{shown(unknown[0])}' is none of {allowed}, or null")
