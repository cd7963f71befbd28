"""Image files that no library writes willingly, byte by byte."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

EXIF = b"Exif\0\0"


def pattern(width=40, height=30):
    """Smooth, and different at every corner."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, (x + y) / 2], -1).round().astype(np.uint8)


def saved(image, kind, **options):
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def in_mode(mode, pixels=None):
    return Image.fromarray(pattern() if pixels is None else pixels).convert(mode)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows, *, depth=8, colour=2, before=(), after=()):
    """A PNG file: `rows` are bytes with a filter byte each, or None for hardly any.

    More chunks stand `before` and `after` the pixels.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" if rows is None else rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(before)
        + pixels
        + b"".join(after)
        + chunk(b"IEND", b"")
    )


def tiff(width, height, data, *, order="<", bits=(8,), photometric=1, more=()):
    """One raw strip behind the directory.

    `more` are (tag, type, values) that add to its entries or replace them.
    """
    sizes = {1: "B", 3: "H", 4: "I"}
    fields = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, bits),
        259: (3, (1,)),
        262: (3, (photometric,)),
        273: (4, (0,)),
        277: (3, (len(bits),)),
        278: (4, (height,)),
        279: (4, (len(data),)),
    } | {tag: (kind, values) for tag, kind, values in more}
    start = 8 + 2 + 12 * len(fields) + 4
    spill = {
        tag: struct.pack(order + sizes[kind] * len(values), *values)
        for tag, (kind, values) in fields.items()
    }
    at = start + sum(len(raw) for raw in spill.values() if len(raw) > 4)
    if 273 in fields and fields[273][1] == (0,):
        spill[273] = struct.pack(order + "I", at)
    directory, behind = struct.pack(order + "H", len(fields)), b""
    for tag in sorted(fields):
        kind, values = fields[tag]
        raw = spill[tag]
        value = (
            raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(order + "I", start + len(behind))
        )
        behind += raw if len(raw) > 4 else b""
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + value
    head = b"II*\0" if order == "<" else b"MM\0*"
    return (
        head + struct.pack(order + "I", 8) + directory + struct.pack(order + "I", 0) + behind + data
    )


def tiff_of(values, *, order="<", **options):
    """A grey TIFF of an array's own type."""
    sample = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    more = (*options.pop("more", ()), (339, 3, (sample,)))
    return tiff(
        values.shape[1],
        values.shape[0],
        data,
        order=order,
        bits=(values.dtype.itemsize * 8,),
        more=more,
        **options,
    )


def pfm(values):
    return b"Pf\n%d %d\n-1.0\n" % values.shape[::-1] + values[::-1].astype("<f4").tobytes()


def gif(screen, frame, *, disposal=0):
    """One frame that claims a size of its own on a screen of another."""
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
    control = b"!\xf9\x04" + struct.pack("<BHBB", disposal << 2, 0, 0, 0)
    return head + control + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x4c\x01\0;"


def webp_canvas(width, height):
    """A file that announces a canvas, with the frame of a small image in it."""
    frame = saved(pattern(4, 4), "WEBP", lossless=True)[12:]
    canvas = (
        b"VP8X"
        + struct.pack("<I", 10)
        + bytes(4)
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )
    return b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(frame)) + b"WEBP" + canvas + frame


def jpeg_sized(width, height, **options):
    """A JPEG whose header is given another size."""
    data = bytearray(saved(pattern(8, 8), "JPEG", **options))
    at = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def patched(data, mark, offset, new):
    """`data` with `new` written `offset` bytes behind the start of `mark`."""
    at = data.index(mark) + offset
    return data[:at] + new + data[at + len(new) :]


def exif(orientation, *broken):
    """An EXIF block with an orientation; `broken` are more raw entries of 12 bytes."""
    entries = [struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0), *broken]
    return (
        EXIF
        + b"MM\0*\0\0\0\x08"
        + struct.pack(">H", len(entries))
        + b"".join(sorted(entries))
        + bytes(4)
    )


def on_white(colour, alpha):
    return np.rint(np.asarray(colour) * (alpha / 255) + 255 - alpha)
