"""Masks passwords and keys in what is printed or recorded; URIs may contain them."""

from __future__ import annotations

import re

MASK = "***"

_USER = re.compile(
    r"(?<=://)[^\s/@:]*:"  # a name, or none, and a colon
    r"(?!\d{1,5}/)"  # which is not that of a port
    r"(?:[^\s/]*|[^\s@]*)@"  # the password; a slash in it should be written %2F, and often is not
)
_TOKEN = re.compile(r"(https?://)[^\s/@]+@")
_OPTION = re.compile(
    r"([?&;][^\s=&;]*(?:secret|passw|token|signature|\bsig|key|credential)[^\s=&;]*=)[^\s&;'\"]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """A text with `***` for users and passwords in URIs and for options named like a secret."""
    if "://" not in text:
        return text
    text = _USER.sub(f"{MASK}@", text)
    text = _TOKEN.sub(rf"\1{MASK}@", text)
    return _OPTION.sub(rf"\1{MASK}", text)
