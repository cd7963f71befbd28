"""Image bytes to pixels and back: one decoder and one encoder for every step.

Whatever the bytes are, the decoder gives upright RGB or an ImageError: one odd file among a million
must not end a job, nor take its memory.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import math
import re
import threading
import warnings
from collections.abc import Generator
from functools import cache
from typing import Any, Literal, assert_never, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from discl_ray.core.image_bytes import ends_early, is_heic, is_jpeg
from discl_ray.errors import ImageError

Codec = Literal["png", "webp", "jpeg"]

MAX_PIXELS = 50_000_000
"""Pixels of a decoded image, at most.

A larger JPEG is decoded at a fraction. Anything else is rejected by its header, before a pixel is
decoded, unless more are allowed; then it is reduced.
"""

LARGEST = 1_000_000_000
"""Pixels that can be allowed. Images of a data set were checked when it was read, and are read
again with this limit."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Decoders that untrusted bytes may reach. Pillow's others run programs (EPS) or are rare."""

# At import: the suffixes below need them, and Pillow would load them when the first image is
# opened, which may be in several threads at once.
for _plugin in ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Ppm", "Avif", "Jpeg2K"):
    importlib.import_module(f"PIL.{_plugin}ImagePlugin")

_OF_PILLOW = [suffix for suffix, kind in Image.EXTENSION.items() if kind in FORMATS]

SUFFIXES = (*_OF_PILLOW, ".pjpeg", ".pjp", ".mpo")
"""What names of such files end with, in any case: Pillow's, and others of JPEG."""

HEIC_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")
"""Photographs of telephones, which the extra `heic` reads."""

HEIC_REMEDY = "pip install 'discl-ray[heic]'"

# Some of Pillow's decoders reserve memory as soon as a file is opened (a GIF's frame, a WebP's
# canvas) and obey only Pillow's own limit. It raises above twice this figure; between once and
# twice it would warn of images that are allowed here.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# In characters, of up to four bytes each.
PngImagePlugin.MAX_TEXT_MEMORY = 16 * PngImagePlugin.MAX_TEXT_CHUNK

_CUT = (
    "image file is truncated",
    "Truncated File Read",
    "not enough image data",
    "Unexpected end of file",
)
"""What Pillow says when it comes to the end of the bytes too early."""

BAND = 2**22
"""Pixels that are converted at once where an image is reduced."""


def decode_image(data: bytes, *, limit: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Encoded bytes as upright RGB pixels, uint8, contiguous, shape (H, W, 3), H W <= MAX_PIXELS.

    A JPEG of more pixels is decoded at 1/2, 1/4 or 1/8 of its sides by libjpeg. A progressive one
    and other formats must be decoded whole; they may have `limit` pixels and are reduced by a whole
    number.

    Of an animation or a file of many pages, the first is decoded. EXIF orientation is applied,
    alpha is composited on white, colour profiles are ignored. Grey of more than 8 bits is brought
    to 0…255 by the range of its type: 16 bits by v / 257, 12 bits by v / 16.06. 32-bit integers and
    floats have no such range, so the values decide: floats within [0, 1] are multiplied by 255,
    values within [0, 255] stay, values within [0, 65535] are divided by 257, and any others are
    stretched from their minimum to their maximum (an image of one such value is black).

    Raises ImageError, and nothing else, with reason `not_an_image` (none of FORMATS), `needs_heic`
    (HEIC, and the extra is not installed), `too_large`, `truncated` (the end is missing),
    `not_finite` (floats with NaN or infinity) or `corrupt`.
    """
    try:
        image = _open(data, limit)
        rgb = _within(image)
        upright = _upright(rgb, _orientation(image))
        return np.ascontiguousarray(upright)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        # Pillow says the size in its message alone.
        found = re.search(r"\((\d+) pixels", str(error))
        pixels = LARGEST + 1
        if found:
            pixels = int(found[1])
        raise _too_large("", pixels, limit) from error
    except Exception as error:  # for hostile bytes a decoder may raise anything, even MemoryError
        raise _failed(data, error) from error


def _failed(data: bytes, error: Exception) -> ImageError:
    """Why bytes could not be decoded, from what a decoder raised."""
    words = str(error)
    cut = any(phrase in words for phrase in _CUT)
    if cut or ends_early(data):
        return ImageError("truncated", f"{len(data)} bytes: {words}")
    if isinstance(error, UnidentifiedImageError):
        begins = repr(data[:16])
        formats = ", ".join(FORMATS)
        return ImageError(
            "not_an_image", f"{len(data)} bytes, beginning {begins}: none of {formats}"
        )
    kind = type(error).__name__
    return ImageError("corrupt", f"{kind}: {words}")


def encode_image(pixels: NDArray[np.uint8], codec: Codec, quality: int = 95) -> bytes:
    """RGB pixels, uint8 (H, W, 3), as encoded bytes.

    `png` and `webp` are lossless, `jpeg` is of `quality` and 4:4:4. Nothing but pixels is written:
    no EXIF, no position, no profile.
    """
    image = Image.fromarray(pixels)
    out = io.BytesIO()
    match codec:
        case "png":
            # The fastest level that compresses.
            image.save(out, "PNG", compress_level=1)
        case "webp":
            image.save(out, "WEBP", lossless=True, method=0)
        case "jpeg":
            # 0 is 4:4:4: colours keep their resolution.
            image.save(out, "JPEG", quality=quality, subsampling=0)
        case _:
            assert_never(codec)
    return out.getvalue()


def is_image(head: bytes) -> bool:
    """Whether bytes that begin like this may be an image that `decode_image` reads."""
    if is_heic(head) and can_heic():
        return True
    for kind in FORMATS:
        _, begins = Image.OPEN[kind]
        # A format without a test of its own is none of these; a test may return a warning as text.
        if begins is not None and begins(head) is True:
            return True
    return False


@cache
def can_heic() -> bool:
    """Whether the extra `heic` is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def _open(data: bytes, limit: int) -> Image.Image:
    """The loaded image."""
    try:
        image = _identified(data)
    except Image.DecompressionBombError:
        # A JPEG may be decoded at a fraction; nothing is reserved before its size is looked at.
        if is_jpeg(data):
            return _load(JpegImageFile(io.BytesIO(data)), data, limit)
        if limit <= MAX_PIXELS:
            raise
        return _open_large(data, limit)
    return _load(image, data, limit)


def _open_large(data: bytes, limit: int) -> Image.Image:
    """The loaded image, of more pixels than Pillow opens by itself."""
    with _pillow_allows(limit):
        image = _identified(data)
        return _load(image, data, limit)


def _load(image: Image.Image, data: bytes, limit: int) -> Image.Image:
    """An opened image with its pixels; raises ImageError for too many, before they are decoded."""
    _check_size(image, data, limit)
    # Before loading, which forgets the depth of the pixels in the file.
    _match_transparency(image)
    image.load()
    return image


def _identified(data: bytes) -> Image.Image:
    """The image that bytes hold, opened and not loaded."""
    if is_heic(data):
        return _open_heic(data)
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except ValueError as error:
        if "Exif" not in str(error):
            raise
        # libavif refuses a whole file for a broken EXIF item, and ignores items it does not know
        without_exif = data.replace(b"Exif", b"skip")
        return Image.open(io.BytesIO(without_exif), formats=FORMATS)


def _open_heic(data: bytes) -> Image.Image:
    """The HEIC image that bytes hold; raises ImageError if the extra is not installed."""
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError("needs_heic", f"HEIC, which {HEIC_REMEDY} reads") from error
    cast(Any, pillow_heif).register_heif_opener()
    try:
        return Image.open(io.BytesIO(data), formats=["HEIF"])
    except UnidentifiedImageError as error:
        reason = "truncated" if ends_early(data) else "corrupt"
        words = f"{len(data)} bytes that begin as HEIC, and libheif finds no image in them"
        raise ImageError(reason, words) from error


_gate = threading.Lock()


@contextlib.contextmanager
def _pillow_allows(pixels: int) -> Generator[None]:
    """Lets Pillow read one image of so many pixels.

    Pillow's limit is the whole process's: meanwhile only ours applies to other threads' images.
    """
    with _gate:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = pixels // 2
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_size(image: Image.Image, data: bytes, limit: int) -> None:
    """Raises ImageError for too many pixels.

    A JPEG that can be decoded at a fraction is set to the largest one allowed.
    """
    sizes = [image.size]
    if isinstance(image, TiffImageFile):
        sizes.append(_tile(image))
    width, height = image.size
    if isinstance(image, JpegImageFile) and width * height > MAX_PIXELS:
        part = _fraction(width, height)
        if _in_one_scan(image, data):
            # Decoded line by line, at that fraction: the whole is never in memory.
            limit = LARGEST if part is None else width * height
        if part is not None:
            wide = max(1, width // part)
            tall = max(1, height // part)
            image.draft(image.mode, (wide, tall))
    for wide, tall in sizes:
        pixels = wide * tall
        if pixels > limit:
            raise _too_large(f"{wide}x{tall} are ", pixels, limit)


def _tile(image: TiffImageFile) -> tuple[int, int]:
    """Width and height of a TIFF's tiles; 1 and 1 if it has none.

    A tile is decoded whole, however little of it is in the image.
    """
    tags: Any = image.tag_v2
    wide = tags.get(ExifTags.Base.TileWidth, 1)
    tall = tags.get(ExifTags.Base.TileLength, 1)
    return wide, tall


def _fraction(width: int, height: int) -> int | None:
    """The part of its sides, 1/2, 1/4 or 1/8, at which libjpeg decodes at most MAX_PIXELS.

    None if the image is too large even then.
    """
    for part in (2, 4, 8):
        if _pixels(width, height, part) <= MAX_PIXELS:
            return part
    return None


def _pixels(width: int, height: int, part: int) -> int:
    """Pixels of an image whose sides are divided by a number and rounded up."""
    wide = -(-width // part)
    tall = -(-height // part)
    return wide * tall


def _in_one_scan(image: JpegImageFile, data: bytes) -> bool:
    """Whether a JPEG is decoded line by line.

    Progressive ones, and those with one scan a colour, are held in memory whole.
    """
    if "progressive" in image.info:
        return False
    colours = image.layers  # pyright: ignore[reportAttributeAccessIssue]
    # The header of the first scan, which Pillow has just read: its marker, its length without the
    # marker, and how many colours the scan holds.
    length = 6 + 2 * colours
    marker = b"\xff\xda"
    header = marker + length.to_bytes(2, "big") + bytes([colours])
    end = image.fp.tell() if image.fp else 0
    start = end - 2 - length
    return data[start:end].startswith(header)


def _too_large(what: str, pixels: int, limit: int) -> ImageError:
    """The error for an image of more pixels than the limit, with what to do."""
    megapixels = pixels / 1e6
    remedy = "make it smaller"
    if pixels <= LARGEST:
        remedy = f"data.max_megapixels={math.ceil(megapixels)} reads it"
    allowed = limit / 1e6
    return ImageError(
        "too_large", f"{what}{megapixels:.1f} megapixels, at most {allowed:g} are read; {remedy}"
    )


def _within(image: Image.Image) -> Image.Image:
    """A loaded image as RGB of at most MAX_PIXELS.

    Larger ones are reduced, and converted a band of rows at a time, for memory.
    """
    width, height = image.size
    part = 1
    while _pixels(width, height, part) > MAX_PIXELS:
        part += 1
    if part == 1:
        return _to_rgb(image)
    factor = (min(part, width), min(part, height))
    if _is_deep(image):
        # The values of the whole image decide how they are brought to 8 bits.
        grey = Image.fromarray(_grey(image))
        return grey.reduce(factor).convert("RGB")
    wide = -(-width // part)
    tall = -(-height // part)
    out = Image.new("RGB", (wide, tall))
    # A multiple of `part`: every band is reduced to whole rows.
    groups_of_rows = max(1, BAND // (width * part))
    rows = part * groups_of_rows
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        band = image.crop((0, top, width, bottom))
        small = _to_rgb(band).reduce(factor)
        out.paste(small, (0, top // part))
    return out


def _is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits a pixel: integers (I, I;16, …) or floats (F)."""
    return image.mode == "F" or image.mode.startswith("I")


def _match_transparency(image: Any) -> None:
    """Scales a PNG's transparent colour to 8 bits: the file has it in its own depth."""
    if image.format != "PNG" or "transparency" not in image.info:
        return
    colour = image.info["transparency"]
    match image.tile[0].args:
        case "L;2":
            image.info["transparency"] = colour * 85  # 255 / 3
        case "L;4":
            image.info["transparency"] = colour * 17  # 255 / 15
        case "RGB;16B":
            high_bytes = tuple(value >> 8 for value in colour)
            image.info["transparency"] = high_bytes
        case _:
            pass


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1…8; 1 if there is none or the block is broken.

    Pillow has already applied that of a TIFF.
    """
    with contextlib.suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image, turned in place by its EXIF orientation."""
    # exif_transpose() rewrites other EXIF too and may fail at it: it gets the orientation alone
    image.info.clear()
    image.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as a new one of mode RGB."""
    if _is_deep(image):
        grey = Image.fromarray(_grey(image))
        return grey.convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # Pillow has no direct way
        image = image.convert("LA")
    white = Image.new("RGBA", image.size, "white")
    on_white = Image.alpha_composite(white, image.convert("RGBA"))
    return on_white.convert("RGB")


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels of a mode of more than 8 bits, uint8 (H, W)."""
    values = np.asarray(image)
    tags: Any = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    # the 16 bits of a PGM come as mode I
    integers = image.mode == "I" and image.format != "PPM"
    if image.mode == "F":
        return _stretch(values)
    if integers:
        # Pillow reads 32 bits as signed whether they are or not; a TIFF that says nothing is not.
        sample_format = tags.get(ExifTags.Base.SampleFormat)
        unsigned = sample_format in (None, (1,))
        return _stretch(values.view(np.uint32) if unsigned else values)
    twelve_bits = tags.get(ExifTags.Base.BitsPerSample) == (12,)
    grey = _eight_bits(4095 if twelve_bits else 65535)[values]
    if "transparency" in image.info:
        transparent = values == image.info["transparency"]
        grey[transparent] = 255
    return grey


def _eight_bits(highest: int) -> NDArray[np.uint8]:
    """0…255 for each of 2**16 values, of which `highest` becomes 255; shape (65536,)."""
    scaled = np.arange(65536) * (255 / highest)
    levels = np.rint(scaled).clip(0, 255)
    return levels.astype(np.uint8)


def _stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers without a range of their own, brought to 0…255 by the rule in `decode_image`."""
    low = float(values.min())
    high = float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("not_finite", f"pixels lie between {low} and {high}")
    zero = 0.0
    if low < 0 or high > 65535:
        zero = low
        span = high - low
        scale = 255 / span if span > 0 else 0.0
    elif values.dtype.kind == "f" and high <= 1:
        scale = 255.0
    elif high <= 255:
        scale = 1.0
    else:
        scale = 1 / 257
    # In place: an image of MAX_PIXELS is 400 MB in float64.
    scaled = values.astype(np.float64)
    scaled -= zero
    scaled *= scale
    return np.rint(scaled, out=scaled).astype(np.uint8)
