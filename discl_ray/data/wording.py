"""How paths, names and counts that come from a data set are written in a message."""

from __future__ import annotations

from collections.abc import Sequence

from discl_ray.process.masking import masked


def readable(path: str) -> str:
    """A path as valid text: bytes that are not UTF-8 become escapes such as `\\xe9`."""
    data = path.encode("utf-8", "surrogateescape")  # the bytes as they are on the disk
    return data.decode("utf-8", "backslashreplace")


def shown(text: str, limit: int = 120) -> str:
    """Text from a data set for one line of a message: no control characters, no secrets, short."""
    text = masked(text)
    begin = text[:limit]
    plain = "".join(_printable(character) for character in begin)
    length = len(text)
    if length <= limit:
        return plain
    return f"{plain}… ({length} characters)"


def _printable(character: str) -> str:
    """A character, or the escape of one that is not printable."""
    if character.isprintable():
        return character
    return ascii(character)[1:-1]


def first_few(names: Sequence[str], limit: int = 5, width: int = 60, quote: str = "") -> str:
    """The first names, separated by commas, and an ellipsis if there are more than `limit`."""
    words: list[str] = []
    for name in names[:limit]:
        word = shown(name, width)
        words.append(f"{quote}{word}{quote}")
    if len(names) > limit:
        words.append("…")
    return ", ".join(words)


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: `1 image`, `2 images`; the default plural adds an s."""
    if number == 1:
        return f"{number} {singular}"
    return f"{number} {plural or singular + 's'}"
