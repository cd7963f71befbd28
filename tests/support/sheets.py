"""Small tables of a spectrum and its real images.

Their pictures have one colour that a test finds again.
"""

import numpy as np
import pyarrow as pa

from discl_ray.core.images import encode_image
from discl_ray.core.schema import SAMPLES, SPECTRUM, VERDICT
from discl_ray.spectrum.filter import KEPT


def encoded(colour, side=8):
    """A PNG of one colour."""
    return encode_image(np.full((side, side, 3), colour, np.uint8), "png")


def image_of(colour):
    return {"bytes": None if colour is None else encoded(colour), "path": None}


def samples(rows):
    """SAMPLES of dicts that name what matters; `colour` is the image's, None a broken one."""
    filled = []
    for row in rows:
        image = {"bytes": b"broken", "path": None}
        if row["colour"] is not None:
            image = image_of(row["colour"])
        plain = {"split": "train", "label": 0, "class_name": "otter"}
        given = {name: value for name, value in row.items() if name != "colour"}
        filled.append({**plain, **given, "image": image})
    return pa.Table.from_pylist(filled, schema=SAMPLES)


def spectrum(rows):
    """An opened spectrum of dicts that name what matters.

    `colour` None is a row without an image.
    """
    filled = []
    for row in rows:
        plain = {
            "sample_id": "s",
            "role": "train",
            "replica": 0,
            "attempt": 0,
            "label": 0,
            "text_sim": 0.25,
            "text_rank": 1,
            "source_text_sim": 0.3,
            "source_text_rank": 1,
            "kept": True,
            "reason": KEPT,
            "status": "ok",
        }
        given = {name: value for name, value in row.items() if name != "colour"}
        filled.append({**plain, **given, "image": image_of(row["colour"])})
    return pa.Table.from_pylist(filled, schema=pa.schema([*SPECTRUM, *VERDICT]))
