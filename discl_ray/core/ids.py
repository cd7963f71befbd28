"""Identity from content: ids, seeds and hashes that are equal on every machine and in every process.

Python's `hash` is salted per process and a global random state depends on what ran before; neither is used anywhere.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def _digest(parts: tuple[object, ...]) -> bytes:
    # JSON keeps ("a", "bc") and ("ab", "c") apart and is the same text everywhere.
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def stable_id(*parts: object) -> str:
    """32 hexadecimal characters from the parts' content."""
    return _digest(parts).hex()


def stable_seed(*parts: object) -> int:
    """A seed in [0, 2**63) from the parts' content."""
    return int.from_bytes(_digest(parts)[:8], "big") >> 1


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def folder_hash(folder: Path) -> str:
    """One hash over every file of a folder: relative names and contents, in sorted order."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()
