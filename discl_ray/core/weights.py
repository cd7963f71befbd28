"""What safetensors files hold, from their headers alone: no weight is read, however large the model."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
    return value


def read_header(file: Path) -> dict[str, Weight]:
    """Name -> weight of a safetensors file.

    Raises ModelError if the file is not one, or ends too soon.
    """
    found: dict[str, Weight] = {}
    try:
        with safe_open(file, framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dict)
                part = opened.get_slice(name)
                found[name] = Weight(
                    tuple(part.get_shape()), part.get_dtype().startswith(("F", "BF"))
                )
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
    listed = index.get("weight_map")
    if not isinstance(listed, dict) or not isinstance(index.get("metadata"), dict):
        raise ModelError(
            f"{index_file}: needs the objects 'metadata' and 'weight_map'; download or copy it again"
        )
    names = sorted({str(name) for name in listed.values()})
    lost = [
        name
        for name in names
        if not (index_file.parent / name).is_file() or Path(name).name != name
    ]
    if lost or not names:
        raise ModelError(
            f"{index_file.parent}: {len(lost)} of the {len(names)} shards that {index_file.name} names are missing "
            f"({_some(lost)}); download or copy them"
        )
    files = [index_file.parent / name for name in names]
    if differ := sorted(listed.keys() ^ read_headers(files).keys()):
        raise ModelError(
            f"{index_file}: its list and its {len(names)} shards differ in {len(differ)} weights ({_some(differ)}); "
            "they are not of one model: download or copy them again"
        )
    return files


def compare(where: str, expected: Mapping[str, Weight], found: Mapping[str, Weight]) -> None:
    """Raises ModelError unless the weights found are those expected, by name and shape, in one sentence with the remedy."""
    missing, unknown = (
        sorted(expected.keys() - found.keys()),
        sorted(found.keys() - expected.keys()),
    )
    both = sorted(expected.keys() & found.keys())
    shapes = [
        f"{n} is {found[n]}, not {expected[n]}" for n in both if found[n].shape != expected[n].shape
    ]
    packed = [name for name in both if expected[name].real and not found[name].real]
    told = [
        (missing, f"{len(missing)} of {len(expected)} weights are missing ({_some(missing)})"),
        (unknown, f"{len(unknown)} are not the model's ({_some(unknown)})"),
        (shapes, f"{len(shapes)} have another shape ({_some(shapes)})"),
        (packed, f"{len(packed)} hold integers ({_some(packed)})"),
    ]
    if not (missing or unknown or shapes or packed):
        return
    raise ModelError(
        f"{where}: {', '.join(text for names, text in told if names)}; {_remedy(missing, unknown, shapes, packed)}"
    )


def _remedy(
    missing: Sequence[str], unknown: Sequence[str], shapes: Sequence[str], packed: Sequence[str]
) -> str:
    if prefix := foreign_prefix(missing, unknown):
        return f"the names carry the prefix '{prefix}': rename them without it, or save the model that is inside the wrapper"
    if packed:
        return "quantised weights are not loaded; take them in float16, bfloat16 or float32"
    if shapes and not missing and not unknown:
        return "weights and config.json are of different models: download or copy both again"
    return "the rest would stay random or be left out: download or copy the model again, or save it with its own library"


def foreign_prefix(missing: Iterable[str], unknown: Iterable[str]) -> str:
    """What stands before the names of at least half of the missing weights; empty if nothing does."""
    wanted, before = set(missing), Counter[str]()
    for name in unknown:
        parts = name.split(".")
        tails = (i for i in range(1, len(parts)) if ".".join(parts[i:]) in wanted)
        if (first := next(tails, None)) is not None:
            before[".".join(parts[:first]) + "."] += 1
    (prefix, count), *_ = before.most_common(1) or [("", 0)]
    return prefix if 2 * count >= len(wanted) else ""


def vocabulary_fits(words: int, rows: int) -> bool:
    """Whether `rows` vectors can be those of a tokenizer of `words`: ids beyond them would end a job, far fewer are not of it."""
    return 0.9 * rows <= words <= rows


def outline(files: Mapping[str, Path]) -> str:
    """Identifies what a check of names and shapes sees: the headers of weights, the other files whole.

    `files` are by the names they have in their model.
    """
    seen = {
        name: sha256(_raw_header(file)) if file.suffix == ".safetensors" else file_hash(file)
        for name, file in files.items()
    }
    return stable_id(seen)


def _raw_header(file: Path) -> bytes:
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        return stream.read(min(size, 100_000_000))  # the format's own limit


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
