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

from discl_ray.core.images import LARGEST, decode_image
from discl_ray.core.storage import Store
from discl_ray.errors import ImageError, UnreadableError, trouble_of_store
from discl_ray.process.calls import AGAIN

Sources = dict[str, NDArray[np.uint8]]
"""RGB pixels by sample."""


def image_bytes(image: Mapping[str, Any]) -> bytes:
    """The encoded bytes of an `image` value {bytes, path}.

    A path is absolute, or `storage.reference` of a URI. Raises OSError if the file cannot be read.
    """
    if image["bytes"] is not None:
        return image["bytes"]
    folder, name = Store.file(image["path"])
    return folder.read(name)


def image_pixels(image: Mapping[str, Any]) -> NDArray[np.uint8]:
    """The pixels of an `image` value, uint8 (H, W, 3).

    Any size is decoded: it was checked when the data set was read. Raises OSError or ImageError.
    """
    return decode_image(image_bytes(image), limit=LARGEST)


def read_sources(run: Store, wanted: pa.Array) -> tuple[Sources, dict[str, str]]:
    """Pixels of some samples of a run, and the reason for each that cannot be decoded.

    `wanted` holds sample ids; the images are those of `sources.parquet`.
    """
    with run.reading("sources.parquet", f"{AGAIN}, which writes it again"):
        sources = run.dataset("sources.parquet")
        is_wanted = pads.field("sample_id").isin(wanted)
        table = sources.to_table(columns=["sample_id", "image"], filter=is_wanted)
    pixels: Sources = {}
    broken: dict[str, str] = {}
    sample_ids = table["sample_id"].to_pylist()
    images = table["image"].to_pylist()
    for sample_id, image in zip(sample_ids, images, strict=True):
        try:
            pixels[sample_id] = image_pixels(image)
        except ImageError as error:
            broken[sample_id] = error.reason
        except OSError as error:
            trouble = trouble_of_store(str(error))
            if trouble is not None:  # of all images of the store, and for now
                why, todo = trouble
                raise UnreadableError(f"data.root: cannot be read ({why}); {todo}") from error
            broken[sample_id] = "unreadable"
    return pixels, broken
