"""The real images a run starts from: bytes in a table, or files by path.

PLAN carries no pixels; workers read the sources of their shard here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from numpy.typing import NDArray

from discl_ray.core.ids import sha256
from discl_ray.core.images import LARGEST, decode_image
from discl_ray.core.run_directory import SOURCES_FILE
from discl_ray.core.shards import Slice
from discl_ray.core.storage import Store
from discl_ray.errors import TO_READ, ImageError, UnreadableError, trouble_of_store
from discl_ray.process.calls import AGAIN

Sources = dict[str, NDArray[np.uint8]]
"""RGB pixels by sample."""


NEITHER = "it has neither bytes nor a path"


def image_bytes(image: Mapping[str, Any]) -> bytes:
    """The encoded bytes of an `image` value {bytes, path}.

    A path is absolute, or `storage.reference` of a URI. Raises OSError if the file cannot be read,
    or there is neither.
    """
    if image["bytes"] is not None:
        return image["bytes"]
    if image["path"] is None:
        raise OSError(NEITHER)
    folder, name = Store.file(image["path"])
    return folder.read(name)


def image_pixels(image: Mapping[str, Any]) -> NDArray[np.uint8]:
    """The pixels of an `image` value, uint8 (H, W, 3).

    Any size is decoded: it was checked when the data set was read. Raises OSError or ImageError.
    """
    return decode_image(image_bytes(image), limit=LARGEST)


CHANGED = "changed"
"""Why a source has no pixels whose bytes are others than when the data set was read."""


def read_sources(
    run: Store, wanted: Mapping[str, str | None], place: Slice | None = None
) -> tuple[Sources, dict[str, str]]:
    """Pixels of some samples of a run, and the reason for each that cannot be used.

    `wanted` maps sample ids to the SHA-256 of the images that were planned with, None where it is
    not known. `place` says where their shard's real images lie; without it they are looked up in
    the whole `sources.parquet` of a run that an earlier version laid out.
    """
    table = _look_up(run, wanted) if place is None else place.read(run, ["sample_id", "image"])
    pixels: Sources = {}
    broken: dict[str, str] = {}
    sample_ids = table["sample_id"].to_pylist()
    for number, sample_id in enumerate(sample_ids):
        if sample_id not in wanted:
            continue
        image = table["image"][number].as_py()
        try:
            pixels[sample_id] = _planned_pixels(image, wanted[sample_id])
        except ImageError as error:
            broken[sample_id] = error.reason
        except OSError as error:
            trouble = trouble_of_store(str(error), TO_READ)
            if trouble is not None:  # of all images of the store, and for now
                why, todo = trouble
                raise UnreadableError(f"data.root: cannot be read ({why}); {todo}") from error
            broken[sample_id] = "unreadable"
    return pixels, broken


def _planned_pixels(image: Mapping[str, Any], planned: str | None) -> NDArray[np.uint8]:
    """The pixels of an `image` value whose bytes have the planned hash.

    Another image must not pass under the ids of the planned one. Raises OSError or ImageError.
    """
    data = image_bytes(image)
    pixels = decode_image(data, limit=LARGEST)
    if planned is not None and sha256(data) != planned:
        raise ImageError(CHANGED, "its bytes are others than when the data set was read")
    return pixels


def _look_up(run: Store, wanted: Mapping[str, str | None]) -> pa.Table:
    """`sample_id` and `image` of some sources of a run that an earlier version laid out."""
    with run.reading(SOURCES_FILE, f"{AGAIN}, which writes it again"):
        is_wanted = pads.field("sample_id").isin(pa.array(sorted(wanted), pa.string()))
        sources = run.dataset(SOURCES_FILE)
        return sources.to_table(columns=["sample_id", "image"], filter=is_wanted)
