"""What safetensors files hold, from their headers alone: no weight is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

from safetensors import SafetensorError, safe_open

from discl_ray.core.ids import file_hash, sha256, stable_id
from discl_ray.core.storage import check_regular
from discl_ray.errors import ModelError

SHOWN = 3
"""Names a message cites of each kind."""

HEADER_BYTES = 100_000_000
"""Of a header, at most: the format's own limit."""


class Weight(NamedTuple):
    """A tensor without its numbers."""

    shape: tuple[int, ...]
    real: bool
    """Floating-point numbers of whatever precision."""

    def __str__(self) -> str:
        sides = ", ".join(map(str, self.shape))
        return f"[{sides}]"


Weights: TypeAlias = Mapping[str, Weight]
"""A model's weights by name."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises ModelError if the file is missing or holds something else."""
    try:
        check_regular(path)
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or error
        raise ModelError(f"{path}: cannot be read ({why})") from error
    except ValueError as error:
        raise ModelError(f"{path}: is not JSON ({error})") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise ModelError(f"{path}: holds {kind}, a JSON object is needed")
    return cast("dict[str, Any]", value)


def read_header(file: Path) -> dict[str, Weight]:
    """Name -> weight of a safetensors file.

    Raises ModelError if the file is not one, or ends too soon.
    """
    found: dict[str, Weight] = {}
    try:
        with cast(Any, safe_open)(file, framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dict)
                part = opened.get_slice(name)
                dtype = part.get_dtype()
                shape = tuple(part.get_shape())
                # F64, F32, F16, F8_E4M3, … and BF16; integers begin with I or U.
                found[name] = Weight(shape, real=dtype.startswith(("F", "BF")))
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file}: damaged or cut short ({error}); download or copy it again"
        ) from error
    return found


def read_headers(files: Iterable[Path]) -> dict[str, Weight]:
    """Name -> weight of several files; raises ModelError like `read_header`."""
    found: dict[str, Weight] = {}
    for file in files:
        found |= read_header(file)
    return found


def indexed_files(index_file: Path) -> list[Path]:
    """The shards an index names, once they are all there and hold exactly the weights it lists.

    Raises ModelError.
    """
    listed = _listed(index_file)
    files = _shards(index_file, listed)
    held = read_headers(files)
    differ = sorted(listed.keys() ^ held.keys())
    if differ:
        number = len(files)
        raise ModelError(
            f"{index_file}: its list and its {number} shards differ in {len(differ)} weights "
            f"({_some(differ)}); they are not of one model: download or copy them again"
        )
    return files


def _listed(index_file: Path) -> dict[str, Any]:
    """Weight -> shard as an index lists them; raises ModelError if it is none."""
    index = read_json(index_file)
    for key in ("metadata", "weight_map"):
        if not isinstance(index.get(key), dict):
            raise ModelError(
                f"{index_file}: needs the objects 'metadata' and 'weight_map'; "
                "download or copy it again"
            )
    return index["weight_map"]


def _shards(index_file: Path, listed: Mapping[str, Any]) -> list[Path]:
    """The files that an index lists, sorted; raises ModelError unless they are beside it."""
    folder = index_file.parent
    distinct = {str(name) for name in listed.values()}
    names = sorted(distinct)
    lost = [name for name in names if not _lies_in(folder, name)]
    if lost or not names:
        number = len(names)
        raise ModelError(
            f"{folder}: {len(lost)} of the {number} shards that {index_file.name} names are "
            f"missing ({_some(lost)}); download or copy them"
        )
    return [folder / name for name in names]


def _lies_in(folder: Path, name: str) -> bool:
    """Whether a name is that of a file directly in a folder."""
    # A name with a folder in it could lead out of the model's.
    if Path(name).name != name:
        return False
    return (folder / name).is_file()


class Differences(NamedTuple):
    """How the weights that were found differ from the expected ones."""

    missing: list[str]
    unknown: list[str]
    """Found, and not expected."""
    shapes: list[str]
    """Of another shape: name and both shapes, in words."""
    packed: list[str]
    """Integers where numbers of floating point are expected."""

    @classmethod
    def between(cls, expected: Weights, found: Weights) -> Differences:
        """Each kind of difference, sorted by name."""
        shapes: list[str] = []
        packed: list[str] = []
        for name in sorted(expected.keys() & found.keys()):
            wanted = expected[name]
            held = found[name]
            if held.shape != wanted.shape:
                shapes.append(f"{name} is {held}, not {wanted}")
            if wanted.real and not held.real:
                packed.append(name)
        return cls(
            missing=sorted(expected.keys() - found.keys()),
            unknown=sorted(found.keys() - expected.keys()),
            shapes=shapes,
            packed=packed,
        )

    def in_words(self, expected: int) -> str:
        """How many weights differ in which way, of how many; empty if none does."""
        parts: list[str] = []
        if self.missing:
            names = _some(self.missing)
            parts.append(f"{len(self.missing)} of {expected} weights are missing ({names})")
        if self.unknown:
            names = _some(self.unknown)
            parts.append(f"{len(self.unknown)} are not the model's ({names})")
        if self.shapes:
            names = _some(self.shapes)
            parts.append(f"{len(self.shapes)} have another shape ({names})")
        if self.packed:
            names = _some(self.packed)
            parts.append(f"{len(self.packed)} hold integers ({names})")
        return ", ".join(parts)


def compare(where: str, expected: Weights, found: Weights) -> None:
    """Raises ModelError, with the remedy, unless names and shapes of weights are those expected."""
    differences = Differences.between(expected, found)
    words = differences.in_words(len(expected))
    if words:
        remedy = _remedy(differences)
        raise ModelError(f"{where}: {words}; {remedy}")


def _remedy(differences: Differences) -> str:
    """What to do about a model's weights that differ, by the most likely cause."""
    missing, unknown, shapes, packed = differences
    if prefix := foreign_prefix(missing, unknown):
        return (
            f"the names carry the prefix '{prefix}': rename them without it, "
            "or save the model that is inside the wrapper"
        )
    if packed:
        return "quantised weights are not loaded; take them in float16, bfloat16 or float32"
    if shapes and not missing and not unknown:
        return "weights and config.json are of different models: download or copy both again"
    return (
        "the rest would stay random or be left out: download or copy the model again, "
        "or save it with its own library"
    )


def foreign_prefix(missing: Iterable[str], unknown: Iterable[str]) -> str:
    """What precedes the names of at least half of the missing weights; empty if nothing does."""
    wanted = set(missing)
    before = Counter[str]()
    for name in unknown:
        prefix = _before(name, wanted)
        if prefix:
            before[prefix] += 1
    if not before:
        return ""
    ((commonest, count),) = before.most_common(1)
    # Fewer may be a coincidence: short names such as `weight` end many others.
    return commonest if 2 * count >= len(wanted) else ""


def _before(name: str, wanted: Container[str]) -> str:
    """What precedes a wanted name at the end of another, with the last dot; empty if none does."""
    parts = name.split(".")
    for first in range(1, len(parts)):
        ending = ".".join(parts[first:])
        if ending in wanted:
            return name.removesuffix(ending)
    return ""


def vocabulary_fits(words: int, rows: int) -> bool:
    """Whether an embedding of `rows` vectors can be that of a tokenizer of `words`.

    Ids beyond the rows would end a job; far fewer words belong to another tokenizer.
    """
    return 0.9 * rows <= words <= rows


def outline(files: Mapping[str, Path]) -> str:
    """Hash of what a check of names and shapes reads: headers of weights, other files whole.

    `files` are by the names they have in their model.
    """
    hashes: dict[str, str] = {}
    for name, file in files.items():
        if file.suffix == ".safetensors":
            hashes[name] = sha256(_raw_header(file))
        else:
            hashes[name] = file_hash(file)
    return stable_id(hashes)


def _raw_header(file: Path) -> bytes:
    """A safetensors file's header: JSON, after its length in 8 bytes, little-endian."""
    with file.open("rb") as stream:
        length = stream.read(8).ljust(8, b"\0")
        size = int.from_bytes(length, "little")
        return stream.read(min(size, HEADER_BYTES))


def _some(names: Sequence[str]) -> str:
    """The first SHOWN of some names."""
    shown = ", ".join(names[:SHOWN])
    if len(names) <= SHOWN:
        return shown
    return f"{shown}, …"
