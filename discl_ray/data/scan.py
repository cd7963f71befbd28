"""Every listed image read, hashed and decoded once: its upright size, or why it cannot be used."""

from __future__ import annotations

import pyarrow as pa

from discl_ray.core.ids import sha256
from discl_ray.core.images import MAX_PIXELS, decode_image
from discl_ray.core.storage import Store
from discl_ray.data.listing import Read
from discl_ray.errors import ImageError

SCANNED = pa.schema(
    [
        ("sample_id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
        ("reason", pa.string()),  # null, or why the image cannot be used
        ("detail", pa.string()),
    ]
)

LONGEST_DETAIL = 300
"""Characters of a detail; what a decoder says may hold a whole header."""


def scan(rows: pa.Table, root: Store, read: Read, *, limit: int = MAX_PIXELS) -> pa.Table:
    """SCANNED of LISTING rows, one row each, in their order; a bad image is a row with a reason.

    `limit` is the number of pixels as for `decode_image`.
    """
    ids = rows["sample_id"].to_pylist()
    found: list[dict[str, object]] = []
    for sample_id, data in zip(ids, read(root, rows), strict=True):
        found.append({"sample_id": sample_id, **_measure(data, limit)})
    return pa.Table.from_pylist(found, schema=SCANNED)


def _measure(data: bytes | ImageError, limit: int) -> dict[str, object]:
    """Size and hash of an encoded image, or the reason why it has none."""
    try:
        if isinstance(data, ImageError):
            raise data
        height, width, _ = decode_image(data, limit=limit).shape
    except ImageError as error:
        return {"reason": error.reason, "detail": str(error)[:LONGEST_DETAIL]}
    return {"width": width, "height": height, "sha256": sha256(data)}
