"""Every listed image read, hashed and decoded once: its upright size, or why it cannot be used. Pure: rows in, as many rows out."""

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


def scan(rows: pa.Table, root: Store, read: Read, *, limit: int = MAX_PIXELS) -> pa.Table:
    """SCANNED of LISTING rows, in their order; one bad image becomes a row with a reason. `limit` as for `decode_image`."""
    found: list[dict[str, object]] = []
    for sample_id, data in zip(rows["sample_id"].to_pylist(), read(root, rows), strict=True):
        try:
            if isinstance(data, ImageError):
                raise data
            height, width, _ = decode_image(data, limit=limit).shape
            row = {"width": width, "height": height, "sha256": sha256(data)}
        except ImageError as error:
            row = {"reason": error.reason, "detail": str(error)[:300]}
        found.append({"sample_id": sample_id, **row})
    return pa.Table.from_pylist(found, schema=SCANNED)
