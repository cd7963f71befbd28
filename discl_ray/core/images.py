"""Image bytes to pixels and back: one decoder and one encoder for every step.

Whatever the bytes are, the decoder gives upright RGB or an ImageError: one odd file among a million must not end a job, nor
take its memory.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from discl_ray.errors import ImageError

Codec = Literal["png", "webp", "jpeg"]

MAX_PIXELS = 50_000_000
"""Images larger than this are refused by their header, before a pixel is decoded."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Decoders that untrusted bytes may reach. Pillow has others that run programs (EPS) or that nobody keeps images in."""

# Some of Pillow's decoders reserve memory as soon as a file is opened (a GIF's frame, a WebP's canvas) and hold only to Pillow's
# own limit. It refuses above twice this figure; between once and twice it would warn of images that are allowed here.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
PngImagePlugin.MAX_TEXT_MEMORY = 16 * PngImagePlugin.MAX_TEXT_CHUNK  # characters, of up to four bytes each

_CUT = ("image file is truncated", "Truncated File Read", "not enough image data")
"""What Pillow says when it comes to the end of the bytes too early."""

_ENCODERS: dict[str, Callable[[Image.Image, io.BytesIO, int], None]] = {
    "png": lambda image, out, _: image.save(out, "PNG", compress_level=1),
    "webp": lambda image, out, _: image.save(out, "WEBP", lossless=True, method=0),
    "jpeg": lambda image, out, quality: image.save(out, "JPEG", quality=quality, subsampling=0),
}


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Encoded bytes as upright RGB pixels, uint8, contiguous, shape (H, W, 3).

    Of an animation or a file of many pages, the first. EXIF orientation is applied, alpha is composited on white, colour
    profiles are ignored. Grey of more than 8 bits is brought to 0…255 by the range of its type: 16 bits by v / 257, 12 bits by
    v / 16.06. 32-bit integers and floats have no such range, so theirs is judged by the values: floats within [0, 1] are
    multiplied by 255, values within [0, 255] stay, values within [0, 65535] are divided by 257, and any others are stretched
    from their minimum to their maximum (an image of one such value is black).

    Raises ImageError, and nothing else, with reason `not_an_image` (none of FORMATS), `too_large` (more than MAX_PIXELS),
    `truncated` (the end is missing), `not_finite` (floats with NaN or infinity) or `corrupt`.
    """
    try:
        image = _open(data)
        _check_size(image)
        _match_transparency(image)
        image.load()
        return np.ascontiguousarray(_upright(_to_rgb(image), _orientation(image)))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", str(error)) from error
    except Exception as error:  # a decoder meeting hostile bytes raises anything: ValueError, struct.error, MemoryError, ...
        if _ends_early(data) or any(words in str(error) for words in _CUT):
            raise ImageError("truncated", f"{len(data)} bytes: {error}") from error
        if isinstance(error, UnidentifiedImageError):
            raise ImageError(
                "not_an_image", f"{len(data)} bytes, beginning {data[:16]!r}: none of {', '.join(FORMATS)}"
            ) from error
        raise ImageError("corrupt", f"{type(error).__name__}: {error}") from error


def encode_image(pixels: NDArray[np.uint8], codec: Codec, quality: int = 95) -> bytes:
    """RGB pixels, uint8 (H, W, 3), as encoded bytes. `png` and `webp` are lossless, `jpeg` is of `quality` and 4:4:4.

    Nothing but pixels is written: no EXIF, no position, no profile.
    """
    out = io.BytesIO()
    _ENCODERS[codec](Image.fromarray(pixels), out, quality)
    return out.getvalue()


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except ValueError as error:
        if "Exif" not in str(error):
            raise
        # libavif refuses a whole file for a broken EXIF item, and ignores items it does not know
        return Image.open(io.BytesIO(data.replace(b"Exif", b"skip")), formats=FORMATS)


def _check_size(image: Image.Image) -> None:
    sizes = [image.size]
    if isinstance(image, TiffImageFile):  # a tile is decoded whole, however little of it lies in the image
        sizes.append((image.tag_v2.get(ExifTags.Base.TileWidth, 1), image.tag_v2.get(ExifTags.Base.TileLength, 1)))
    for width, height in sizes:
        if width * height > MAX_PIXELS:
            raise ImageError("too_large", f"{width}x{height} is more than {MAX_PIXELS} pixels")


def _match_transparency(image: Any) -> None:
    """A PNG names its transparent colour in the depth of the file; Pillow compares it with pixels of 8 bits."""
    if image.format != "PNG" or "transparency" not in image.info:
        return
    colour = image.info["transparency"]
    match image.tile[0].args:
        case "L;2":
            image.info["transparency"] = colour * 85
        case "L;4":
            image.info["transparency"] = colour * 17
        case "RGB;16B":
            image.info["transparency"] = tuple(value >> 8 for value in colour)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1…8; 1 if there is none or the block is broken. Pillow has already applied that of a TIFF."""
    with contextlib.suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    # exif_transpose() writes the rest of the EXIF anew and fails if it cannot; so it gets the orientation alone
    image.info.clear()
    image.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as a new one of mode RGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # Pillow has no direct way
        image = image.convert("LA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels of a mode of more than 8 bits, uint8 (H, W)."""
    values = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    # the 16 bits of a PGM come as mode I
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        unsigned = image.mode == "I" and tags.get(ExifTags.Base.SampleFormat) in (None, (1,))
        return _stretch(values.view(np.uint32) if unsigned else values)
    highest = 4095 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 65535
    levels = np.rint(np.arange(65536) * (255 / highest)).clip(0, 255).astype(np.uint8)
    grey = levels[values]
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return grey


def _stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers without a range of their own, brought to 0…255 by the rule in `decode_image`."""
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("not_finite", f"pixels lie between {low} and {high}")
    zero = 0.0
    if low < 0 or high > 65535:
        zero, scale = low, 255 / (high - low) if high > low else 0.0
    elif values.dtype.kind == "f" and high <= 1:
        scale = 255.0
    else:
        scale = 1.0 if high <= 255 else 1 / 257
    scaled = values.astype(np.float64)
    scaled -= zero
    scaled *= scale
    return np.rint(scaled, out=scaled).astype(np.uint8)


def _ends_early(data: bytes) -> bool:
    """Whether the container says it is longer than the data. The decoders of these say only that they failed."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data[:4] in (b"II*\0", b"MM\0*"):  # the directory is often last
        return len(data) <= int.from_bytes(data[4:8], "little" if data[:2] == b"II" else "big")
    if data[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000 without a container ends with a marker
        return data[-2:] != b"\xff\xd9"
    if data[4:8] == b"jP  " or data[4:12] in (b"ftypavif", b"ftypavis"):
        start = 0
        while start + 8 <= len(data):
            size = int.from_bytes(data[start : start + 4], "big")
            if size == 1:
                size = int.from_bytes(data[start + 8 : start + 16], "big")
            if size < 8:  # 0: up to the end of the file
                return False
            start += size
        return start != len(data)
    return False
