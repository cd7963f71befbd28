"""What the bytes of an image file say of it, without a decoder."""

from __future__ import annotations

_HEVC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
"""Brands of files whose images are coded by HEVC (ISO/IEC 23008-12)."""


def is_heic(data: bytes) -> bool:
    """Whether bytes begin as HEIC: an ISO base media file one of whose brands is of HEVC."""
    if data[4:8] != b"ftyp":
        return False
    size = int.from_bytes(data[:4], "big")
    brands = data[8:size][:64]  # nobody names more than a few
    starts = range(0, len(brands), 4)
    codes = [brands[start : start + 4] for start in starts]
    return any(code in _HEVC for code in codes)


def is_jpeg(data: bytes) -> bool:
    """Whether bytes begin as JPEG."""
    return data[:2] == b"\xff\xd8"


def ends_early(data: bytes) -> bool:
    """Whether the container says it is longer than the data; decoders say only that they failed."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        size = int.from_bytes(data[4:8], "little")
        return len(data) < 8 + size
    if data[:4] == b"II*\0":  # a TIFF's directory is often last
        return len(data) <= int.from_bytes(data[4:8], "little")
    if data[:4] == b"MM\0*":
        return len(data) <= int.from_bytes(data[4:8], "big")
    if data[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000 without a container ends with a marker
        return data[-2:] != b"\xff\xd9"
    avif = data[4:12] in (b"ftypavif", b"ftypavis")
    if data[4:8] == b"jP  " or avif or is_heic(data):
        return _boxes_end_early(data)
    return False


def _boxes_end_early(data: bytes) -> bool:
    """Whether the last box of an ISO base media file, or a box before it, is cut."""
    start = 0
    while start + 8 <= len(data):
        head = data[start : start + 16]
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # the size follows, in 64 bits
            size = int.from_bytes(head[8:], "big")
        if size < 8:  # 0: up to the end of the file
            return False
        start += size
    return start != len(data)
