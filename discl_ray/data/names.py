"""Class names from a file, and which names say nothing to a text encoder.

class,name             *.csv: a header, then a line a class
{"n01440764": "tench"} *.json
n01440764 tench        any other file: the key up to the first blank, then the name
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from discl_ray.core.storage import Store, check_regular
from discl_ray.data.files import Problems
from discl_ray.data.root import same_name
from discl_ray.data.wording import shown
from discl_ray.errors import DataError

LONGEST = 200
"""Characters of a name."""


def load_names(path: str) -> dict[str, str]:
    """Class key -> name, from a local file or a URI. Keys are as classes are compared, names lose blanks around them.

    Raises DataError with line and rule: a key that stands twice, a name that is empty, holds a control character or has more
    than LONGEST characters, a line without a name, a file that cannot be read or is not UTF-8.
    """
    text = _text(path)
    problems = Problems(f"data.names = '{shown(path)}'")
    suffix = path.lower().rsplit(".", 1)[-1]
    entries = {"csv": _from_csv, "json": _from_json}.get(suffix, _from_lines)(text, problems)
    found: dict[str, tuple[str, str]] = {}
    for where, spelt, name in entries:
        key = same_name(spelt)
        if key in found:
            problems.add(where, f"class '{shown(key)}' stands in {found[key][0]} already")
        elif rule := _broken_rule(name):
            problems.add(where, f"name of class '{shown(key)}' {rule}")
        found.setdefault(key, (where, name.strip()))
    problems.check()
    if not found:
        raise DataError(f"data.names = '{shown(path)}': holds no name")
    return {key: name for key, (_, name) in found.items()}


def _text(path: str) -> str:
    try:
        if "://" in path:
            folder, name = Store.file(path)
            data = folder.read(name)
        else:
            check_regular(Path(path))
            data = Path(path).read_bytes()
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"data.names = '{shown(path)}': cannot be read: {error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"data.names = '{shown(path)}': line {line}: is not UTF-8; save it as UTF-8"
        ) from error


def _broken_rule(name: str) -> str | None:
    if not name.strip():
        return "is empty"
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name.strip()):
        return "holds a control character"
    return f"has more than {LONGEST} characters" if len(name.strip()) > LONGEST else None


def _from_csv(text: str, problems: Problems) -> Iterator[tuple[str, str, str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            where, line = f"line {line}", reader.line_num + 1
            if not any(cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                if header.count("class") != 1 or header.count("name") != 1:
                    problems.add(
                        where, f"columns are {shown(', '.join(header))}; needed: class,name"
                    )
                    return
            elif len(cells) != len(header):
                problems.add(
                    where,
                    f"has {len(cells)} fields, the header has {len(header)}; quote names with a comma",
                )
            else:
                yield where, cells[header.index("class")], cells[header.index("name")]
    except csv.Error as error:
        problems.add(f"line {line}", str(error))


def _from_json(text: str, problems: Problems) -> Iterator[tuple[str, str, str]]:
    def pairs(items: list[tuple[str, Any]]) -> Any:
        return items

    try:  # numbers are refused anyway, and one of ten thousand digits would not be read
        value = json.loads(text, object_pairs_hook=pairs, parse_int=len, parse_float=len)
    except json.JSONDecodeError as error:
        problems.add(f"line {error.lineno}", error.msg)
        return
    except RecursionError:
        value = None
    if not isinstance(value, list) or text.lstrip()[:1] != "{":
        problems.add("line 1", 'an object is needed: {"class": "name", …}')
        return
    for number, (key, name) in enumerate(value, 1):
        if isinstance(name, str):
            yield f"entry {number}", key, name
        else:
            problems.add(f"entry {number}", f"the name of class '{shown(key)}' is no text")


def _from_lines(text: str, problems: Problems) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not line.strip():
            continue
        key, *name = line.split(None, 1)
        if name:
            yield f"line {number}", key, name[0]
        else:
            problems.add(f"line {number}", f"'{shown(key)}' has no name; a line reads: key name")


_COUNTED = "class|cls|category|cat|label|lbl|id|idx|index|type|group|species|taxon|synset|object|obj|item|target|folder|cluster|no"

_CODES = re.compile(
    "|".join(
        (
            r"[\d\W_]*\d[\d\W_]*",  # 17, 0123, 3-4, 1_000
            r"n\d{8}",  # WordNet
            r"[a-z]{1,3}_?-?\d+(?:[_-]?[a-z]?\d*)",  # C3, sp_017, cls12, sp-17b
            r"[a-z]{1,2} \d+",  # sp 17
            rf"(?:{_COUNTED})[ _#:.-]*\d+[a-z]?",  # class_5, species 12
            r"[a-z]+[_-]?0\d+",  # genus_0012: people do not pad numbers
            r"\d+[a-z]{1,2}\d*",  # 12a
            r"0x[0-9a-f]+",
            r"(?=[a-f]*\d)[0-9a-f]{6,}",  # a hash
            r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # a UUID
        )
    ),
    re.IGNORECASE,
)

_DESIGNATION = re.compile(r"[A-Z]{1,3}-[1-9]\d*")
"""C-130, F-16: capitals, a hyphen and a number are what people call a thing."""


def code_like(name: str) -> bool:
    """Whether a class name is a number or a code that no text encoder can know, such as `n01440764`, `17` or `sp_017`."""
    plain = name.strip()
    return bool(_CODES.fullmatch(plain)) and not _DESIGNATION.fullmatch(plain)
