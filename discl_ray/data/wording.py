"""How paths and names that come from a data set are shown in a sentence."""

from __future__ import annotations

from discl_ray.process.masking import masked


def readable(path: str) -> str:
    """A path as valid text: bytes that are no UTF-8 are written as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shown(text: str, limit: int = 120) -> str:
    """Text from a data set as an error may print it: on one line, without control characters, and not endless."""
    text = masked(text)
    plain = "".join(c if c.isprintable() or c == " " else ascii(c)[1:-1] for c in text[:limit])
    return plain if len(text) <= limit else f"{plain}… ({len(text)} characters)"
