"""Whatever the bytes are: upright RGB, or an ImageError with the right reason."""

import contextlib
import functools
import hashlib
import io
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from discl_ray.core import images
from discl_ray.core.images import MAX_PIXELS, decode_image, encode_image
from discl_ray.errors import ImageError
from tests.core.odd_images import (
    EXIF,
    chunk,
    exif,
    gif,
    in_mode,
    jpeg_sized,
    on_white,
    patched,
    pattern,
    pfm,
    png,
    saved,
    tiff,
    tiff_of,
    webp_canvas,
)

PLAIN = pattern()
RED, BLUE = (
    np.full((30, 40, 3), (200, 10, 10), np.uint8),
    np.full((30, 40, 3), (10, 10, 200), np.uint8),
)
RAMP16 = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)

FORMATS = {
    "jpeg": saved(PLAIN, "JPEG"),
    "jpeg-progressive": saved(PLAIN, "JPEG", progressive=True),
    "png": saved(PLAIN, "PNG"),
    "webp": saved(PLAIN, "WEBP", lossless=True),
    "webp-lossy": saved(PLAIN, "WEBP"),
    "gif": saved(PLAIN, "GIF"),
    "bmp": saved(PLAIN, "BMP"),
    "tiff": saved(PLAIN, "TIFF"),
    "tiff-lzw": saved(PLAIN, "TIFF", compression="tiff_lzw"),
    "ppm": saved(PLAIN, "PPM"),
    "avif": saved(PLAIN, "AVIF"),
    "jp2": saved(PLAIN, "JPEG2000"),
    "j2k": saved(PLAIN, "JPEG2000", no_jp2=True),
}


def as_pillow_says(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def is_(expected, within=0):
    """Pixels are these: an array, or one colour for all."""

    def check(pixels):
        target = np.asarray(expected, float)
        target = (
            np.repeat(target[..., None], 3, -1)
            if target.ndim == 2
            else np.broadcast_to(target, pixels.shape)
        )
        assert pixels.shape == target.shape
        assert np.abs(pixels - target).max() <= within

    return check


def animated(kind, **options):
    return saved(RED, kind, save_all=True, append_images=[Image.fromarray(BLUE)], **options)


def transparent_palette(transparency):
    image = Image.fromarray((np.arange(1200).reshape(30, 40) % 3).astype(np.uint8), "P")
    image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    return saved(image, "PNG", transparency=transparency)


def palette_pixels(*alphas):
    colours = np.array([[200, 10, 10], [10, 200, 10], [10, 10, 200]])
    shown = np.stack(
        [on_white(colour, alpha) for colour, alpha in zip(colours, alphas, strict=True)]
    )
    return shown[np.arange(1200).reshape(30, 40) % 3]


def zeros_png(side, depth_and_colour):
    """A whole PNG of nothing: a hundred kilobytes that decode to hundreds of megabytes."""
    depth, colour = depth_and_colour
    row = 1 + side * depth * (3 if colour == 2 else 1) // 8
    return png(side, side, bytes(row * side), depth=depth, colour=colour)


@functools.cache
def many_zeros():
    return zlib.compress(bytes(150_000_000), 1)


def text_bomb(kind, *, behind=False):
    start = {b"zTXt": b"note\0\0", b"iTXt": b"note\0\1\0\0\0", b"iCCP": b"name\0\0"}[kind]
    chunks = [chunk(kind, start + many_zeros())]
    return png(2, 2, bytes(14), **({"after": chunks} if behind else {"before": chunks}))


def wide_text(number):
    """A chunk of a kilobyte that becomes a string of four megabytes.

    One letter in it needs four bytes.
    """
    text = b"a" * (2**20 - 4) + "\N{GRINNING FACE}".encode()
    return chunk(b"iTXt", b"%d\0\1\0\0\0" % number + zlib.compress(text, 1))


def half_seen(mode):
    """Red with an alpha of 100, in a mode that keeps it."""
    colour = {"RGBA": (200, 10, 10, 100), "LA": (200, 100)}[mode]
    return saved(Image.new(mode, (40, 30), colour), "PNG")


def grey_tiff(values, **options):
    return lambda: tiff_of(np.asarray(values), **options)


ONE_SCAN = b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0"
LEVELS16 = np.rint(RAMP16 / 257)
BOMBS = {
    "png-100MP": lambda: zeros_png(10_000, (8, 0)),
    "png-200MP": lambda: zeros_png(14_200, (1, 0)),
    "png-4000000MP": lambda: png(2**31 - 1, 2**31 - 1, None),
    # libjpeg would hold these whole, however small a fraction is asked for
    "jpeg-progressive-100MP": lambda: jpeg_sized(10_000, 10_000, progressive=True),
    "jpeg-scan-a-colour-100MP": lambda: jpeg_sized(10_000, 10_000).replace(
        ONE_SCAN, b"\xff\xda\0\x08\1\1\0\0\x3f\0"
    ),
    "jpeg-4295MP": lambda: jpeg_sized(65_535, 65_535),
    "gif-frame-100MP": lambda: gif((2, 2), (10_000, 10_000), disposal=2),
    "gif-screen-200MP": lambda: gif((20_000, 10_000), (20_000, 10_000), disposal=2),
    "webp-canvas-100MP": lambda: webp_canvas(10_000, 10_000),
    "bmp-100MP": lambda: patched(FORMATS["bmp"], b"BM", 18, (10_000).to_bytes(4, "little") * 2),
    "ppm-200MP": lambda: b"P6 20000 10000 255\n" + bytes(99),
    "tiff-100MP": lambda: tiff(10_000, 10_000, bytes(99)),
    "tiff-tile-400MP": lambda: tiff_of(
        np.zeros((4, 4), np.uint8), more=[(322, 4, (20_000,)), (323, 4, (20_000,))]
    ),
    "avif-100MP": lambda: patched(FORMATS["avif"], b"ispe", 8, (10_000).to_bytes(4, "big") * 2),
    "jp2-100MP": lambda: patched(FORMATS["jp2"], b"ihdr", 4, (10_000).to_bytes(4, "big") * 2),
    "j2k-100MP": lambda: patched(
        FORMATS["j2k"], b"\xff\x4f\xff\x51", 8, (10_000).to_bytes(4, "big") * 2
    ),
}
TEXT_BOMBS = {
    "png-text-bomb": lambda: text_bomb(b"zTXt"),
    "png-text-bomb-behind": lambda: text_bomb(b"zTXt", behind=True),
    "png-utf8-bomb": lambda: text_bomb(b"iTXt"),
    "png-profile-bomb": lambda: text_bomb(b"iCCP"),
    "png-many-texts": lambda: png(2, 2, bytes(14), before=[wide_text(i) for i in range(60)]),
}

REFUSED = {
    **{name: (build, "too_large") for name, build in BOMBS.items()},
    **{name: (build, "corrupt") for name, build in TEXT_BOMBS.items()},
    **{
        f"half-{name}": (lambda data=data: data[: len(data) // 2], "truncated")
        for name, data in FORMATS.items()
    },
    "half-pgm-plain": (lambda: b"P2 4 4 255\n1 2 3 4 5 6 7 8", "truncated"),
    "half-pgm-scaled": (lambda: b"P5 4 4 100\n" + bytes(9), "truncated"),
    "jp2-longer-inside": (
        lambda: patched(FORMATS["jp2"], b"\xff\x4f\xff\x51", 8, (20_000).to_bytes(4, "big") * 2),
        "corrupt",
    ),
    "empty": (lambda: b"", "not_an_image"),
    "one-byte": (lambda: b"\xff", "not_an_image"),
    "html": (lambda: b"<!doctype html><html><body>404 Not Found</body></html>", "not_an_image"),
    "svg": (
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "not_an_image",
    ),
    "zip": (lambda: b"PK\3\4" + bytes(60), "not_an_image"),
    "wav": (lambda: b"RIFF\xff\xff\0\0WAVEfmt " + bytes(30), "not_an_image"),
    "mp4": (lambda: b"\0\0\0\x18ftypisom" + bytes(30), "not_an_image"),
    "zeros": (lambda: bytes(1000), "not_an_image"),
    "png-signature": (lambda: FORMATS["png"][:8], "not_an_image"),
    "jpeg-start": (lambda: FORMATS["jpeg"][:2], "not_an_image"),
    "gif-header": (lambda: FORMATS["gif"][:13], "not_an_image"),
    "eps": (lambda: saved(PLAIN, "EPS"), "not_an_image"),
    "eps-behind-a-comment": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n",
        "not_an_image",
    ),
    "psd": (
        lambda: b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\4\0\0\0\4\0\x08\0\3" + bytes(64),
        "not_an_image",
    ),
    "ico": (lambda: saved(PLAIN, "ICO"), "not_an_image"),
    "tga": (lambda: saved(PLAIN, "TGA"), "not_an_image"),
    "pcx": (lambda: saved(PLAIN, "PCX"), "not_an_image"),
    "png-0xN": (lambda: png(0, 7, bytes(7)), "not_an_image"),
    "png-Nx0": (lambda: png(7, 0, b""), "not_an_image"),
    "gif-0x0": (lambda: gif((0, 0), (0, 0)), "not_an_image"),
    "ppm-0xN": (lambda: b"P6 0 5 255\n", "not_an_image"),
    "tiff-0xN": (lambda: tiff(0, 5, b""), "not_an_image"),
    "jpeg-0xN": (lambda: jpeg_sized(0, 8), "not_an_image"),
    "png-checksum": (lambda: patched(FORMATS["png"], b"IDAT", 40, b"\xff\0\xff\0"), "corrupt"),
    "png-not-zlib": (
        lambda: png(2, 2, None, before=[chunk(b"IDAT", b"no zlib at all")]),
        "corrupt",
    ),
    "png-short-chunk": (lambda: png(2, 2, bytes(14), before=[chunk(b"pHYs", b"\0")]), "corrupt"),
    "png-no-palette": (lambda: png(2, 1, b"\0\0\1", colour=3), "corrupt"),
    "ppm-negative": (lambda: b"P2 2 1 255\n-1 2\n", "corrupt"),
    "bmp-header-type": (lambda: patched(FORMATS["bmp"], b"BM", 14, b"\x29\0\0\0"), "corrupt"),
    "tiff-float-nan": (grey_tiff(np.array([[0, np.nan]], np.float32)), "not_finite"),
    "tiff-float-inf": (grey_tiff(np.array([[0, -np.inf]], np.float32)), "not_finite"),
    "pfm-nan": (lambda: pfm(np.array([[np.nan, 1]])), "not_finite"),
}

DECODED = {
    **{
        f"garbage-behind-{name}": (lambda d=d: d + b"\0garbage" * 99, is_(as_pillow_says(d)))
        for name, d in FORMATS.items()
    },
    "one-pixel": (lambda: png(1, 1, b"\0\1\2\3"), is_((1, 2, 3))),
    "tall": (lambda: png(1, 5000, b"\0\1\2\3" * 5000), is_((1, 2, 3))),
    # more than 8 bits
    "png-16": (lambda: saved(RAMP16, "PNG"), is_(LEVELS16)),
    "png-16-rgb": (
        lambda: png(
            16,
            16,
            b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in RAMP16),
            depth=16,
        ),
        is_(LEVELS16, within=1),
    ),
    "tiff-16": (grey_tiff(RAMP16), is_(LEVELS16)),
    "tiff-16-big-endian": (grey_tiff(RAMP16, order=">"), is_(LEVELS16)),
    "tiff-16-lzw": (lambda: saved(RAMP16, "TIFF", compression="tiff_lzw"), is_(LEVELS16)),
    "tiff-12": (lambda: tiff(2, 1, b"\xff\xf8\0", bits=(12,)), is_(np.array([[255, 128]]))),
    "pgm-16": (lambda: saved(RAMP16, "PPM"), is_(LEVELS16)),
    "pgm-16-dark": (lambda: saved(RAMP16 // 257, "PPM"), is_(np.rint(RAMP16 // 257 / 257))),
    "jp2-16": (lambda: saved(RAMP16, "JPEG2000", irreversible=False), is_(LEVELS16)),
    "int-8-bit-values": (
        grey_tiff(np.array([[0, 1, 200]], np.int32)),
        is_(np.array([[0, 1, 200]])),
    ),
    "int-mask": (grey_tiff(np.array([[0, 1]], np.int32)), is_(np.array([[0, 1]]))),
    "int-16-bit-values": (
        grey_tiff(np.array([[0, 257, 65535]], np.int32)),
        is_(np.array([[0, 1, 255]])),
    ),
    "int-wide": (
        grey_tiff(np.array([[0, 10**9, 2 * 10**9]], np.int32)),
        is_(np.array([[0, 128, 255]])),
    ),
    "int-negative": (
        grey_tiff(np.array([[-100, 0, 100]], np.int32)),
        is_(np.array([[0, 128, 255]]), within=1),
    ),
    "int-16-signed": (grey_tiff(np.array([[-32768, 32767]], np.int16)), is_(np.array([[0, 255]]))),
    "int-unsigned": (
        grey_tiff(np.array([[0, 2**31, 2**32 - 1]], np.uint32)),
        is_(np.array([[0, 128, 255]])),
    ),
    "int-constant": (grey_tiff(np.full((2, 2), -7, np.int32)), is_(0)),
    "float-unit": (grey_tiff(np.array([[0, 0.5, 1]], np.float32)), is_(np.array([[0, 128, 255]]))),
    "float-8-bit-values": (
        grey_tiff(np.array([[0, 1.6, 254.9]], np.float32)),
        is_(np.array([[0, 2, 255]])),
    ),
    "float-16-bit-values": (
        grey_tiff(np.array([[0, 514, 65535]], np.float32)),
        is_(np.array([[0, 2, 255]])),
    ),
    "float-negative": (
        grey_tiff(np.array([[-1, 0, 1]], np.float32)),
        is_(np.array([[0, 128, 255]])),
    ),
    "float-extremes": (
        grey_tiff(np.array([[-3e38, 0, 3e38]], np.float32)),
        is_(np.array([[0, 128, 255]])),
    ),
    "float-tiny": (grey_tiff(np.array([[-1e-45, 1e-45]], np.float32)), is_(np.array([[0, 255]]))),
    "float-constant": (grey_tiff(np.full((2, 2), 1e9, np.float32)), is_(0)),
    "float-zero": (grey_tiff(np.zeros((2, 2), np.float32)), is_(0)),
    "pfm": (lambda: pfm(np.array([[0, 0.5], [1, 0.25]])), is_(np.array([[0, 128], [255, 64]]))),
    # colour spaces
    "jpeg-cmyk": (lambda: saved(in_mode("CMYK", RED), "JPEG", quality=95), is_(RED, within=3)),
    "tiff-cmyk": (lambda: saved(in_mode("CMYK", RED), "TIFF"), is_(RED)),
    "tiff-ycbcr": (lambda: saved(in_mode("YCbCr", RED), "TIFF"), is_(RED, within=3)),
    "tiff-lab": (lambda: saved(in_mode("LAB", RED), "TIFF"), is_(RED, within=4)),
    "grey": (
        lambda: saved(in_mode("L"), "JPEG", quality=95),
        is_(np.asarray(in_mode("L")), within=4),
    ),
    "bits": (lambda: saved(in_mode("1"), "PNG"), is_(np.asarray(in_mode("1")) * 255)),
    "bits-tiff": (
        lambda: saved(in_mode("1"), "TIFF", compression="group4"),
        is_(np.asarray(in_mode("1")) * 255),
    ),
    "palette": (lambda: saved(in_mode("P"), "PNG"), is_(np.asarray(in_mode("P").convert("RGB")))),
    # alpha
    "rgba": (lambda: half_seen("RGBA"), is_(on_white((200, 10, 10), 100), within=1)),
    "rgba-webp": (
        lambda: saved(Image.new("RGBA", (9, 9), (9, 9, 9, 0)), "WEBP", lossless=True),
        is_(255),
    ),
    "rgba-avif": (lambda: saved(Image.new("RGBA", (16, 16), (9, 9, 9, 0)), "AVIF"), is_(255)),
    "la": (lambda: half_seen("LA"), is_(on_white((200, 200, 200), 100), within=1)),
    "la-16": (
        lambda: png(1, 1, b"\0" + (40000).to_bytes(2, "big") + bytes(2), depth=16, colour=4),
        is_(255),
    ),
    "rgba-premultiplied": (
        lambda: tiff(
            1, 1, bytes((78, 4, 4, 100)), bits=(8,) * 4, photometric=2, more=[(338, 3, (1,))]
        ),
        is_(on_white((200, 10, 10), 100), within=2),
    ),
    "la-premultiplied": (
        lambda: tiff(1, 1, bytes((78, 100)), bits=(8, 8), more=[(338, 3, (1,))]),
        is_(on_white((200, 200, 200), 100), within=2),
    ),
    "palette-alpha": (
        lambda: tiff(
            1,
            2,
            bytes((1, 100, 1, 255)),
            bits=(8, 8),
            photometric=3,
            more=[(338, 3, (2,)), (320, 3, ((0, 200 << 8) + (0,) * 254) * 3)],
        ),
        lambda pixels: (
            is_(on_white((200, 200, 200), 100), within=1)(pixels[:1]),
            is_((200, 200, 200))(pixels[1:]),
        ),
    ),
    "palette-one-transparent": (lambda: transparent_palette(1), is_(palette_pixels(255, 0, 255))),
    "palette-transparencies": (
        lambda: transparent_palette(b"\0\x64\xff"),
        is_(palette_pixels(0, 100, 255), within=1),
    ),
    "gif-transparent": (lambda: saved(Image.new("P", (9, 9), 0), "GIF", transparency=0), is_(255)),
    "grey-transparent": (
        lambda: png(2, 1, b"\0\x40\x80", colour=0, before=[chunk(b"tRNS", b"\0\x40")]),
        is_(np.array([[255, 128]])),
    ),
    "grey-transparent-1": (
        lambda: png(2, 1, b"\0\x80", depth=1, colour=0, before=[chunk(b"tRNS", b"\0\0")]),
        is_(255),
    ),
    "grey-transparent-2": (
        lambda: png(2, 1, b"\0\x60", depth=2, colour=0, before=[chunk(b"tRNS", b"\0\1")]),
        is_(np.array([[255, 170]])),
    ),
    "grey-transparent-4": (
        lambda: png(2, 1, b"\0\x4c", depth=4, colour=0, before=[chunk(b"tRNS", b"\0\4")]),
        is_(np.array([[255, 204]])),
    ),
    "grey-transparent-16": (
        lambda: png(
            2, 1, b"\0\x12\x34\x56\x78", depth=16, colour=0, before=[chunk(b"tRNS", b"\x12\x34")]
        ),
        is_(np.array([[255, 86]])),
    ),
    "rgb-transparent": (
        lambda: png(2, 1, b"\0\1\2\3\4\5\6", before=[chunk(b"tRNS", b"\0\1\0\2\0\3")]),
        is_(np.array([[[255] * 3, [4, 5, 6]]])),
    ),
    "rgb-transparent-16": (
        lambda: png(
            2,
            1,
            b"\0" + b"\x12\x34" * 3 + b"\x56\x78" * 3,
            depth=16,
            before=[chunk(b"tRNS", b"\x12\x34" * 3)],
        ),
        is_(np.array([[[255] * 3, [86] * 3]])),
    ),
    # many images in a file: the first
    "gif-animated": (lambda: animated("GIF"), is_(RED)),
    "webp-animated": (lambda: animated("WEBP", lossless=True), is_(RED)),
    "apng": (lambda: animated("PNG"), is_(RED)),
    "avif-animated": (lambda: animated("AVIF", quality=90), is_(RED, within=6)),
    "tiff-pages": (lambda: animated("TIFF"), is_(RED)),
    "mpo": (lambda: animated("MPO", quality=95), is_(RED, within=3)),
    "gif-frame-outside": (
        lambda: patched(FORMATS["gif"], b"GIF", 6, b"\2\0\2\0"),
        is_(as_pillow_says(FORMATS["gif"])),
    ),
    # a broken EXIF block loses nothing
    "exif-garbage-jpeg": (
        lambda: saved(PLAIN, "JPEG", exif=EXIF + b"garbage!"),
        is_(as_pillow_says(FORMATS["jpeg"])),
    ),
    "exif-garbage-png": (lambda: saved(PLAIN, "PNG", exif=EXIF + b"garbage!"), is_(PLAIN)),
    "exif-garbage-webp": (
        lambda: saved(PLAIN, "WEBP", lossless=True, exif=EXIF + b"garbage!"),
        is_(PLAIN),
    ),
    "exif-garbage-avif": (
        lambda: saved(PLAIN, "AVIF", exif=exif(1)).replace(b"MM\0*", b"XX\0*"),
        is_(as_pillow_says(FORMATS["avif"])),
    ),
    "exif-cut": (lambda: saved(PLAIN, "PNG", exif=exif(1)[:20]), is_(PLAIN)),
    "exif-hex-broken": (
        lambda: png(
            1,
            1,
            b"\0\1\2\3",
            before=[chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  4\nzzzz\n")],
        ),
        is_((1, 2, 3)),
    ),
    "exif-orientation-9": (lambda: saved(PLAIN, "PNG", exif=exif(9)), is_(PLAIN)),
    "exif-directory-outside-tiff": (
        lambda: tiff_of(PLAIN[..., 0], more=[(0x8769, 4, (10**6,)), (0x8825, 4, (0,))]),
        is_(PLAIN[..., 0]),
    ),
    # upright all the same, though the maker's tag next to it cannot be written again
    "exif-odd-neighbour": (
        lambda: saved(
            PLAIN,
            "PNG",
            exif=exif(
                3,
                b"\x01\x0f\x00\x07\x00\x00\x00\x04\xff\xff\xff\xff",
                b"\x01\x1a\x00\x02\xff\xff\xff\xff\0\0\0\0",
            ),
        ),
        is_(PLAIN[::-1, ::-1]),
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    ("build", "outcome"), [*REFUSED.values(), *DECODED.values()], ids=[*REFUSED, *DECODED]
)
def test_an_odd_file_gives_pixels_or_its_reason(build, outcome):
    data = build()
    if isinstance(outcome, str):
        with pytest.raises(ImageError) as caught:
            decode_image(data)
        assert caught.value.reason == outcome, str(caught.value)
        assert len(str(caught.value)) < 500
        return
    pixels = decode_image(data)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.flags.c_contiguous
    outcome(pixels)


@pytest.mark.parametrize("name", FORMATS)
def test_a_plain_image_is_what_pillow_makes_of_it(name):
    np.testing.assert_array_equal(decode_image(FORMATS[name]), as_pillow_says(FORMATS[name]))


STORED = {
    1: PLAIN,
    2: PLAIN[:, ::-1],
    3: PLAIN[::-1, ::-1],
    4: PLAIN[::-1],
    5: PLAIN.swapaxes(0, 1),
    6: np.rot90(PLAIN),
    7: PLAIN[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(PLAIN, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_all_orientations_decode_to_the_same_pixels(orientation):
    stored = np.ascontiguousarray(STORED[orientation])
    for kind, options in [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ]:
        tags = exif(orientation) if kind != "TIFF" else exif_of(orientation)
        is_(PLAIN)(decode_image(saved(stored, kind, exif=tags, **options)))
    for kind, options in [("JPEG", {"quality": 98, "subsampling": 0}), ("AVIF", {"quality": 98})]:
        is_(PLAIN, within=9)(decode_image(saved(stored, kind, exif=exif(orientation), **options)))
    deep = stored[..., 0].astype(np.uint16) * 257
    is_(PLAIN[..., 0])(decode_image(saved(deep, "PNG", exif=exif(orientation))))


def exif_of(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("codec", ["png", "webp", "jpeg"])
def test_an_encoded_image_says_nothing_of_where_it_was_taken(codec):
    tags = exif_of(6)
    tags[0x010F] = "camera-maker"
    tags.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0)})
    photo = saved(PLAIN, "JPEG", exif=tags, comment=b"at home", icc_profile=b"a profile")
    assert Image.open(io.BytesIO(photo)).getexif().get_ifd(0x8825)
    data = encode_image(decode_image(photo), codec)
    again = Image.open(io.BytesIO(data))
    again.load()
    assert not again.getexif()
    assert not {"exif", "xmp", "comment", "icc_profile"} & set(again.info)
    assert again.size == (30, 40)
    for word in (b"camera-maker", b"at home", b"Exif", b"eXIf", b"EXIF"):
        assert word not in data


MEASURE = """
import re, sys
from pathlib import Path
from discl_ray.core.images import decode_image
from discl_ray.errors import ImageError

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

parts = ("small", "bombs", "large")
small, files, large = (sorted(Path(sys.argv[1], part).iterdir()) for part in parts)
for file in small:
    decode_image(file.read_bytes())
for file in files:
    data = file.read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    try:
        decode_image(data)
        reason = "decoded"
    except ImageError as error:
        reason = error.reason
    print(file.name, reason, peak() - before)
for file in large:
    print(file.name, decode_image(file.read_bytes()).shape, 0, sep=";")
"""


def write(folder, files):
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def run_python(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc"
)
def test_a_bomb_is_refused_before_it_takes_memory(tmp_path):
    write(tmp_path / "small", FORMATS)
    write(tmp_path / "bombs", {name: build() for name, build in (BOMBS | TEXT_BOMBS).items()})
    # within the limit, and where Pillow would warn if it were left at half of it
    write(tmp_path / "large", {"large": png(5_000, 6_000, bytes(626 * 6_000), depth=1, colour=0)})
    done = run_python(MEASURE, tmp_path)
    assert done.stderr == ""
    *lines, large = done.stdout.splitlines()
    assert len(lines) == len(BOMBS | TEXT_BOMBS)
    for line in lines:
        name, reason, grown = line.split()
        assert reason == REFUSED[name][1], line
        assert float(grown) < 100, line
    assert large == "large;(6000, 5000, 3);0"


THREADS = """
import hashlib, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from discl_ray.core.images import decode_image
from discl_ray.errors import ImageError

files = sorted(Path(sys.argv[1]).iterdir())
start = threading.Barrier(8)

def outcomes(first):
    start.wait()
    found = {}
    for i in range(len(files)):
        file = files[(first + i) % len(files)]
        try:
            found[file.name] = hashlib.sha256(decode_image(file.read_bytes()).tobytes()).hexdigest()
        except ImageError as error:
            found[file.name] = error.reason
    return sorted(found.items())

with ThreadPoolExecutor(8) as pool:
    first, *others = pool.map(outcomes, range(0, 8 * 7, 7))
assert all(other == first for other in others)
for name, found in first:
    print(name, found)
"""


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_threads_decode_what_one_would_from_the_first_image_on(tmp_path):
    """In a fresh process: Pillow loads its decoders at the first image that needs one."""
    odd = {
        name: build()
        for name, (build, _) in (REFUSED | DECODED).items()
        if name not in BOMBS and name not in TEXT_BOMBS
    }
    write(tmp_path / "files", odd)
    lines = dict(
        line.split() for line in run_python(THREADS, tmp_path / "files").stdout.splitlines()
    )
    assert lines.keys() == odd.keys()
    for name, found in lines.items():
        expected = (
            REFUSED[name][1]
            if name in REFUSED
            else hashlib.sha256(decode_image(odd[name]).tobytes()).hexdigest()
        )
        assert found == expected, name


SEEDS = [
    *(
        saved(pattern(9, 7), kind)
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
    ),
    saved(pattern(9, 7), "TIFF", compression="tiff_lzw"),
    saved(pattern(9, 7), "TIFF", compression="jpeg"),
    saved(pattern(9, 7), "JPEG", exif=exif(6), progressive=True),
    saved(pattern(9, 7), "WEBP", exif=exif(6), lossless=True),
    saved(pattern(9, 7), "PNG", exif=exif(6)),
    saved(in_mode("P", pattern(9, 7)), "PNG", transparency=b"\0\x64"),
    tiff_of(RAMP16.astype(np.float32)),
    pfm(RAMP16),
    b"P3 2 2 99\n1 2 3 4 5 6 7 8 9 10 11 12\n",
]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "drop", "repeat"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


def edited(data, edits):
    for edit, where, some in edits:
        at = int(where * len(data))
        match edit:
            case "flip":
                data = data[:at] + some + data[at + len(some) :]
            case "cut":
                data = data[:at]
            case "insert":
                data = data[:at] + some + data[at:]
            case "drop":
                data = data[:at] + data[at + len(some) :]
            case "repeat":
                data = data[:at] + data[max(0, at - 64) :]
    return data


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=500)
@given(seed=st.sampled_from(SEEDS), edits=EDITS)
def test_a_damaged_file_gives_pixels_or_an_image_error(seed, edits):
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # a flipped bit may ask for 50 megapixels, which are allowed but slow
        patch.setattr(images, "MAX_PIXELS", 10_000)
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)
        with contextlib.suppress(ImageError):
            pixels = decode_image(edited(seed, edits))
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
            assert 0 < pixels.size <= 3 * 10_000


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.binary(max_size=200), st.sampled_from([data[:16] for data in SEEDS]))
def test_any_bytes_give_pixels_or_an_image_error(body, head):
    for data in (body, head + body):
        with contextlib.suppress(ImageError):
            assert decode_image(data).dtype == np.uint8


def test_a_large_photograph_is_read_at_a_fraction():
    photo = saved(Image.fromarray(pattern(99, 66)).resize((9_504, 6_336)), "JPEG", exif=exif(6))
    pixels = decode_image(photo)
    assert pixels.shape == (4_752, 3_168, 3)
    upright = np.rot90(pattern(99, 66), -1)
    small = np.asarray(Image.fromarray(pixels).resize((66, 99), Image.Resampling.BOX))
    is_(upright, within=4)(small)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        *[("PNG", mode, {}) for mode in ("RGB", "RGBA", "P", "1", "L", "LA", "I;16")],
        *[
            ("JPEG", "RGB", {"progressive": True}),
            ("JPEG", "CMYK", {}),
            ("TIFF", "F", {}),
            ("WEBP", "RGB", {"lossless": True}),
        ],
    ],
)
@pytest.mark.parametrize("shape", [(300, 240), (21_000, 3), (3, 21_000)])
def test_more_pixels_are_read_where_they_are_allowed_and_come_reduced(
    monkeypatch, kind, mode, options, shape
):
    if max(shape) > 16_383 and kind in ("WEBP", "JPEG"):
        pytest.skip("WebP has no such sides, and a JPEG of these is never too large")
    image = Image.fromarray(pattern(*shape))
    image = (
        image.convert("L").convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
    )
    data = saved(image, kind, **options)
    whole = decode_image(data)
    monkeypatch.setattr(images, "MAX_PIXELS", 9_000)
    monkeypatch.setattr(images, "BAND", 4_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_500)
    if mode != "CMYK":  # a JPEG of one scan needs no leave
        with pytest.raises(
            ImageError,
            match=(
                r"too_large: .*megapixels, at most 0\.009 are read; data\.max_megapixels=1 reads "
                r"it"
            ),
        ):
            decode_image(data, limit=9_000)
    pixels = decode_image(data, limit=72_000)
    height, width, _ = pixels.shape
    assert 1_000 < width * height <= 9_000
    assert Image.MAX_IMAGE_PIXELS == 4_500
    target = np.asarray(Image.fromarray(whole).resize((width, height), Image.Resampling.BOX))
    inside = (
        slice(0, height - 1) if height > 1 else slice(None),
        slice(0, width - 1) if width > 1 else slice(None),
    )
    assert np.abs(pixels[inside].astype(int) - target[inside]).mean() < 3


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photograph_of_a_telephone_is_read_with_the_extra_and_named_without(
    monkeypatch, orientation
):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    data = saved(pattern(64, 48), "HEIF", quality=95, exif=exif(orientation))
    upright = pattern(64, 48) if orientation == 1 else np.rot90(pattern(64, 48), -1)
    is_(upright, within=14)(decode_image(data))
    for broken, reason in (
        (data[: len(data) // 2], "truncated"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "corrupt"),
    ):
        with pytest.raises(ImageError) as caught:
            decode_image(broken)
        assert caught.value.reason == reason
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"needs_heic: .*pip install 'discl-ray\[heic\]'"):
        decode_image(data)


def test_what_is_read_is_known_by_its_first_bytes_and_by_pillows_suffixes():
    for name, data in FORMATS.items():
        assert images.is_image(data[:32]), name
    for head in (
        b"",
        b"P",
        b"MIT License\n\nCopyright",
        b"# read me",
        b"\x7fELF\2\1",
        b"PK\3\4",
        b"{}",
        b"<svg",
        b"8BPS\0\1",
    ):
        assert not images.is_image(head)
    known = {
        suffix for suffix, kind in Image.registered_extensions().items() if kind in images.FORMATS
    }
    assert known <= set(images.SUFFIXES)
    assert {".jfif", ".pjpeg", ".jpg", ".j2k", ".apng"} <= set(images.SUFFIXES)


def test_the_limit_is_the_same_for_pillow():
    assert 2 * Image.MAX_IMAGE_PIXELS == MAX_PIXELS
