"""Identity from content: ids, seeds and hashes that are equal in every process on every machine.

Python's `hash` is salted per process and a global random state depends on what ran before; neither
is used anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from discl_ray.core.columns import Column, as_dictionary, joined

SHA256 = re.compile("[0-9a-f]{64}")

Part: TypeAlias = Column | str | int
"""Of many ids: a column of texts or whole numbers, one a row, or the same value for all."""


def _json(part: object) -> str:
    """The text that is hashed for a part; the same everywhere."""
    return json.dumps(part, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _hash(text: bytes) -> Any:
    """The hash, of 16 bytes, of a JSON list of parts."""
    return hashlib.blake2b(text, digest_size=16)


def _digest(parts: tuple[object, ...]) -> bytes:
    """16 bytes from the parts' content; lists and dicts of plain values are parts, too."""
    # JSON keeps ("a", "bc") and ("ab", "c") apart.
    return _hash(_json(parts).encode()).digest()


def stable_id(*parts: object) -> str:
    """32 hexadecimal characters from the parts' content."""
    return _digest(parts).hex()


def id_of_text(pieces: Iterable[str]) -> str:
    """`stable_id` of one part by its JSON text, which need not be in memory as a whole."""
    found = _hash(b"[")
    for piece in pieces:
        found.update(piece.encode())
    found.update(b"]")
    return found.hexdigest()


def stable_seed(*parts: object) -> int:
    """A seed in [0, 2**63) from the parts' content."""
    first = int.from_bytes(_digest(parts)[:8], "big")
    return first >> 1  # 63 bits: a column of int64 holds it


def stable_ids(*parts: Part) -> pa.Array:
    """`stable_id` of the parts of each row; at least one part is a column.

    The texts that are hashed are in memory together, so this is for blocks of a table.
    """
    return pa.array([_hash(text).hexdigest() for text in _lists(parts)], pa.string())


def stable_seeds(*parts: Part) -> pa.Array:
    """`stable_seed` of the parts of each row, int64; at least one part is a column."""
    seeds: list[int] = []
    for text in _lists(parts):
        first = int.from_bytes(_hash(text).digest()[:8], "big")
        seeds.append(first >> 1)
    return pa.array(seeds, pa.int64())


def _lists(parts: Sequence[Part]) -> list[bytes]:
    """The JSON list of each row's parts."""
    texts = joined([_texts(part) for part in parts], ",")
    lists = joined(["[", texts, "]"])
    return lists.cast(pa.binary()).to_pylist()


def _texts(part: Part) -> Column | str:
    """The JSON texts of a part; of a column, each distinct value is encoded once."""
    if isinstance(part, str | int):
        return _json(part)
    if pa.types.is_integer(part.type) and not part.null_count:
        return part.cast(pa.string())
    coded = as_dictionary(part)
    values = [_json(value) for value in coded.dictionary.to_pylist()]
    texts = pa.array(values, pa.string()).take(coded.indices)
    return texts.fill_null("null")


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
