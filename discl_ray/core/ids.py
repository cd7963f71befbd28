"""Identity from content: ids, seeds and hashes that are equal in every process on every machine.

Python's `hash` is salted per process and a global random state depends on what ran before; neither
is used anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

SHA256 = re.compile("[0-9a-f]{64}")


def _digest(parts: tuple[object, ...]) -> bytes:
    """16 bytes from the parts' content; lists and dicts of plain values are parts, too."""
    # JSON keeps ("a", "bc") and ("ab", "c") apart and is the same text everywhere.
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def stable_id(*parts: object) -> str:
    """32 hexadecimal characters from the parts' content."""
    return _digest(parts).hex()


def stable_seed(*parts: object) -> int:
    """A seed in [0, 2**63) from the parts' content."""
    first = int.from_bytes(_digest(parts)[:8], "big")
    return first >> 1  # 63 bits: a column of int64 holds it


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_hash(file: Path) -> str:
    """SHA-256 of a file's content, hexadecimal.

    Large files of a Hugging Face cache are links to a blob whose name is that hash: gigabytes that
    need not be read.
    """
    target = file.resolve()
    if file.is_symlink() and SHA256.fullmatch(target.name):
        return target.name
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
