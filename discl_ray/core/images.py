"""Image bytes to pixels and back: one decoder and one encoder for every step."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from discl_ray.errors import ImageError

Codec = Literal["png", "webp", "jpeg"]

MAX_PIXELS = 50_000_000
"""Images larger than this are refused by their header, before a pixel is decoded."""

_ENCODERS: dict[str, Callable[[Image.Image, io.BytesIO, int], None]] = {
    "png": lambda image, out, _: image.save(out, "PNG", compress_level=1),
    "webp": lambda image, out, _: image.save(out, "WEBP", lossless=True, method=0),
    "jpeg": lambda image, out, quality: image.save(out, "JPEG", quality=quality, subsampling=0),
}


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Encoded bytes as RGB pixels, uint8, shape (H, W, 3).

    Raises ImageError with reason `not_an_image`, `too_large` or `truncated`.
    """
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ImageError("not_an_image", str(error)) from error
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", str(error)) from error
    except (OSError, SyntaxError) as error:
        raise ImageError("truncated", str(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("too_large", f"{image.width}x{image.height} is more than {MAX_PIXELS} pixels")
    try:
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ImageError("truncated", str(error)) from error


def encode_image(pixels: NDArray[np.uint8], codec: Codec, quality: int = 95) -> bytes:
    """RGB pixels, uint8 (H, W, 3), as encoded bytes. `png` and `webp` are lossless, `jpeg` is of `quality` and 4:4:4."""
    out = io.BytesIO()
    _ENCODERS[codec](Image.fromarray(pixels), out, quality)
    return out.getvalue()
