"""What safetensors files hold, from their headers alone: no weight is read."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from safetensors import SafetensorError, safe_open

from discl_ray.core.ids import file_hash, sha256, stable_id
from discl_ray.core.storage import check_regular
from discl_ray.errors import ModelError

SHOWN = 3
"""Names a message cites of each kind."""


class Weight(NamedTuple):
    """A tensor without its numbers."""

    shape: tuple[int, ...]
    real: bool
    """Floating-point numbers of whatever precision."""

    def __str__(self) -> str:
        return f"[{', '.join(map(str, self.shape))}]"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises ModelError if the file is missing or holds something else."""
    try:
        check_regular(path)
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise ModelError(f"{path}: is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds {type(value).__name__}, a JSON object is needed")
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
                real = part.get_dtype().startswith(("F", "BF"))
                found[name] = Weight(tuple(part.get_shape()), real)
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
    index = read_json(index_file)
    if not all(isinstance(index.get(key), dict) for key in ("metadata", "weight_map")):
        raise ModelError(
            f"{index_file}: needs the objects 'metadata' and 'weight_map'; "
            "download or copy it again"
        )
    listed: dict[str, Any] = index["weight_map"]
    folder = index_file.parent
    names = sorted({str(name) for name in listed.values()})
    # A name with a folder in it could lead out of the model's.
    lost = [name for name in names if not (folder / name).is_file() or Path(name).name != name]
    if lost or not names:
        raise ModelError(
            f"{folder}: {len(lost)} of the {len(names)} shards that {index_file.name} names are "
            f"missing ({_some(lost)}); download or copy them"
        )
    files = [folder / name for name in names]
    differ = sorted(listed.keys() ^ read_headers(files).keys())
    if differ:
        raise ModelError(
            f"{index_file}: its list and its {len(names)} shards differ in {len(differ)} weights "
            f"({_some(differ)}); they are not of one model: download or copy them again"
        )
    return files


def compare(where: str, expected: Mapping[str, Weight], found: Mapping[str, Weight]) -> None:
    """Raises ModelError, with the remedy, unless names and shapes of weights are those expected."""
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    both = sorted(expected.keys() & found.keys())
    other = [name for name in both if found[name].shape != expected[name].shape]
    shapes = [f"{name} is {found[name]}, not {expected[name]}" for name in other]
    packed = [name for name in both if expected[name].real and not found[name].real]
    kinds = [
        (missing, f"{len(missing)} of {len(expected)} weights are missing ({_some(missing)})"),
        (unknown, f"{len(unknown)} are not the model's ({_some(unknown)})"),
        (shapes, f"{len(shapes)} have another shape ({_some(shapes)})"),
        (packed, f"{len(packed)} hold integers ({_some(packed)})"),
    ]
    if not (missing or unknown or shapes or packed):
        return
    differences = ", ".join(text for names, text in kinds if names)
    raise ModelError(f"{where}: {differences}; {_remedy(missing, unknown, shapes, packed)}")


def _remedy(
    missing: Sequence[str], unknown: Sequence[str], shapes: Sequence[str], packed: Sequence[str]
) -> str:
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
        parts = name.split(".")
        tails = (i for i in range(1, len(parts)) if ".".join(parts[i:]) in wanted)
        if (first := next(tails, None)) is not None:
            before[".".join(parts[:first]) + "."] += 1
    (prefix, count), *_ = before.most_common(1) or [("", 0)]
    return prefix if 2 * count >= len(wanted) else ""


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
        weights = file.suffix == ".safetensors"
        hashes[name] = sha256(_raw_header(file)) if weights else file_hash(file)
    return stable_id(hashes)


def _raw_header(file: Path) -> bytes:
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        return stream.read(min(size, 100_000_000))  # the format's own limit


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
