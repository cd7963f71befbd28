import pytest

from discl_ray.core.image_bytes import ends_early, is_heic, is_jpeg


def box(kind, payload):
    size = 8 + len(payload)
    return size.to_bytes(4, "big") + kind + payload


def long_box(kind, payload):
    """A box whose size has 64 bits."""
    size = 16 + len(payload)
    return (1).to_bytes(4, "big") + kind + size.to_bytes(8, "big") + payload


AVIF = box(b"ftyp", b"avif\0\0\0\0avifmif1")
HEIC = box(b"ftyp", b"mif1\0\0\0\0mif1heic")

WHOLE = {
    "webp": b"RIFF" + (16).to_bytes(4, "little") + b"WEBP" + bytes(12),
    "tiff": b"II*\0" + (8).to_bytes(4, "little") + b"\0",
    "tiff-big-endian": b"MM\0*" + (8).to_bytes(4, "big") + b"\0",
    "j2k": b"\xff\x4f\xff\x51" + bytes(4) + b"\xff\xd9",
    "jp2": box(b"jP  ", b"\r\n\x87\n") + box(b"jp2c", bytes(9)),
    "avif": AVIF + box(b"mdat", bytes(20)),
    "avif-64-bits": AVIF + long_box(b"mdat", bytes(20)),
    "heic": HEIC + box(b"mdat", bytes(20)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_container_without_its_last_byte_ends_early(name):
    data = WHOLE[name]
    assert not ends_early(data)
    assert ends_early(data[:-1])


def test_what_does_not_say_its_length_does_not_end_early():
    to_the_end = AVIF + bytes(4) + b"mdat" + bytes(20)  # a size of 0
    for data in (to_the_end, to_the_end[:-1], b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"):
        assert not ends_early(data)


def test_heic_is_known_by_any_brand_in_its_first_box():
    assert is_heic(HEIC)
    assert not is_heic(AVIF)
    assert not is_heic(AVIF + b"heic")
    assert not is_heic(box(b"free", b"heic"))


def test_jpeg_is_known_by_its_marker():
    assert is_jpeg(b"\xff\xd8\xff\xe0")
    assert not is_jpeg(b"\x89PNG")
    assert not is_jpeg(b"")
