import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from discl_ray.core.images import decode_image, encode_image
from discl_ray.errors import ImageError


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (37, 23, 3), dtype=np.uint8)


def huge_png(side):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("codec", ["png", "webp"])
def test_lossless_codecs_keep_every_pixel(codec, pixels):
    data = encode_image(pixels, codec)
    assert Image.open(io.BytesIO(data)).format == codec.upper()
    decoded = decode_image(data)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)
    assert data == encode_image(pixels.copy(), codec)


def test_jpeg_stays_close_without_subsampling():
    smooth = np.stack(np.meshgrid(np.arange(0, 64), np.arange(0, 64))[:1] * 3, -1).astype(np.uint8)
    decoded = decode_image(encode_image(smooth, "jpeg"))
    assert decoded.shape == smooth.shape
    assert np.abs(decoded.astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_every_mode_becomes_rgb(mode):
    out = io.BytesIO()
    Image.new(mode, (5, 4)).save(out, "PNG")
    assert decode_image(out.getvalue()).shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda good: b"", "not_an_image"),
        (lambda good: b"GIF? no", "not_an_image"),
        (lambda good: good[: len(good) // 2], "truncated"),
        (lambda good: huge_png(8000), "too_large"),
    ],
    ids=["empty", "text", "half", "huge"],
)
def test_a_bad_image_names_its_reason(data, reason, pixels):
    with pytest.raises(ImageError) as caught:
        decode_image(data(encode_image(pixels, "png")))
    assert caught.value.reason == reason


def test_a_decompression_bomb_is_a_reason_too():
    with pytest.raises(ImageError) as caught:
        decode_image(
            huge_png(20_000)
        )  # beyond twice Pillow's own limit, where Image.open itself raises
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("cut", [10, 20, 40, 60, 100, 500])
def test_any_cut_of_a_file_is_an_image_error(cut, pixels):
    for codec in ("png", "webp", "jpeg"):
        with pytest.raises(ImageError):
            decode_image(encode_image(pixels, codec)[:cut])
