"""What is printed or recorded shows no password and no key, also where the URI of a place carries one."""

from __future__ import annotations

import re

MASK = "***"

_USER = re.compile(
    r"(?<=://)[^\s/@:]*:"  # a name, or none, and a colon
    r"(?!\d{1,5}/)"  # which is not that of a port
    r"(?:[^\s/]*|[^\s@]*)@"  # the password; a slash in it ought to be %2F, and often is none
)
_TOKEN = re.compile(r"(https?://)[^\s/@]+@")
_OPTION = re.compile(
    r"([?&;][^\s=&;]*(?:secret|passw|token|signature|\bsig|key|credential)[^\s=&;]*=)[^\s&;'\"]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """A text in which every URI's password, with the name before it, and every option that is called like a secret are `***`."""
    if "://" not in text:
        return text
    text = _USER.sub(f"{MASK}@", text)
    text = _TOKEN.sub(rf"\1{MASK}@", text)
    return _OPTION.sub(rf"\1{MASK}", text)
