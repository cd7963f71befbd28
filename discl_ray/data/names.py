"""Class names from a file, and which names mean nothing to a text encoder.

class,name             *.csv: a header, then a line a class
{"n01440764": "tench"} *.json
n01440764 tench        any other file: the key up to the first blank, then the name
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from discl_ray.core.storage import Store, check_regular
from discl_ray.data.config import AnyDataConfig, FilesConfig
from discl_ray.data.listing import Listing
from discl_ray.data.root import same_name
from discl_ray.data.text_files import Problems, csv_rows, decode_text
from discl_ray.data.wording import shown
from discl_ray.errors import DataError

LONGEST = 200
"""Characters of a name."""

NOT_IN_A_NAME = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: control characters, halves of characters, line and paragraph separators."""


class Entry(NamedTuple):
    """One class in a file of names."""

    where: str
    key: str
    name: str


def load_names(path: str) -> dict[str, str]:
    """Class key -> name, from a local file or a URI, both without blanks at the ends.

    Raises DataError with line and rule: a duplicated key, a name that is empty, holds a control
    character or has more than LONGEST characters, a line without a name, a file that cannot be
    read or is not UTF-8.
    """
    file = f"data.names = '{shown(path)}'"
    text = decode_text(file, _read(file, path))
    problems = Problems(file)
    names: dict[str, str] = {}
    first: dict[str, str] = {}
    for entry in _entries(path, text, problems):
        key = same_name(entry.key)
        rule = _broken_rule(entry.name)
        class_ = f"class '{shown(key)}'"
        if key in names:
            problems.add(entry.where, f"{class_} is already in {first[key]}")
        elif rule:
            problems.add(entry.where, f"name of {class_} {rule}")
        names.setdefault(key, entry.name.strip())
        first.setdefault(key, entry.where)
    problems.check()
    if not names:
        raise DataError(f"{file}: holds no name")
    return names


def class_names(config: AnyDataConfig, listing: Listing) -> list[str]:
    """The classes' names by label: the user's, else the data set's, else the keys.

    Raises DataError if the user names a class that does not exist, or two classes alike.
    """
    given: dict[str, str] = {}
    if isinstance(config, FilesConfig) and config.names:
        loaded = load_names(config.names)
        given = {key: same_name(name) for key, name in loaded.items()}
        _check_known(config.names, given, listing)
    names: list[str] = []
    for key in listing.keys:
        own = listing.names.get(key, key)
        names.append(given.get(key, given.get(own, own)))
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(
                f"two classes are both called '{name}'; give them different names with data.names"
            )
    return names


def _check_known(file: str, given: Mapping[str, str], listing: Listing) -> None:
    """Raises DataError if a name is given to a class that the data set does not have."""
    keys = listing.keys
    known = {*keys, *listing.names.values()}
    unknown = sorted(set(given) - known)
    if unknown:
        some = ", ".join(keys[:5])
        raise DataError(f"data.names = '{file}': no class '{unknown[0]}'; classes are {some}, …")


def _read(file: str, path: str) -> bytes:
    """The content of a local file or a URI; `file` is how a message names it."""
    try:
        if "://" in path:
            folder, name = Store.file(path)
            return folder.read(name)
        check_regular(Path(path))
        return Path(path).read_bytes()
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error


def _broken_rule(name: str) -> str | None:
    """What is wrong with a class name."""
    plain = name.strip()
    if not plain:
        return "is empty"
    if any(unicodedata.category(character) in NOT_IN_A_NAME for character in plain):
        return "holds a control character"
    if len(plain) > LONGEST:
        return f"has more than {LONGEST} characters"
    return None


def _entries(path: str, text: str, problems: Problems) -> Iterator[Entry]:
    """The entries of a file, whose kind its suffix tells."""
    if path.lower().endswith(".csv"):
        return _from_csv(text, problems)
    if path.lower().endswith(".json"):
        return _from_json(text, problems)
    return _from_lines(text, problems)


def _from_csv(text: str, problems: Problems) -> Iterator[Entry]:
    """A header `class,name`, then a row a class."""
    header: list[str] = []
    for line, cells in csv_rows(text, problems, trim=True):
        where = f"line {line}"
        if not any(cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            if header.count("class") != 1 or header.count("name") != 1:
                found = shown(", ".join(header))
                problems.add(where, f"columns are {found}; needed: class,name")
                return
        elif len(cells) != len(header):
            fields = f"has {len(cells)} fields, the header has {len(header)}"
            problems.add(where, f"{fields}; quote names with a comma")
        else:
            key = cells[header.index("class")]
            name = cells[header.index("name")]
            yield Entry(where, key, name)


def _from_json(text: str, problems: Problems) -> Iterator[Entry]:
    """An object: class -> name."""

    def pairs(items: list[tuple[str, Any]]) -> Any:
        return items  # a dict would hide duplicated keys

    try:
        # a number is not a name, and one of ten thousand digits could not be parsed
        value = json.loads(text, object_pairs_hook=pairs, parse_int=len, parse_float=len)
    except json.JSONDecodeError as error:
        problems.add(f"line {error.lineno}", error.msg)
        return
    except RecursionError:
        value = None
    if not isinstance(value, list) or not text.lstrip().startswith("{"):
        problems.add("line 1", 'an object is needed: {"class": "name", …}')
        return
    for number, (key, name) in enumerate(value, start=1):
        where = f"entry {number}"
        if isinstance(name, str):
            yield Entry(where, key, name)
        else:
            problems.add(where, f"the name of class '{shown(key)}' is not text")


def _from_lines(text: str, problems: Problems) -> Iterator[Entry]:
    """A key, a blank and a name in each line."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        key, *name = line.split(None, 1)
        if name:
            yield Entry(where, key, name[0])
        else:
            problems.add(where, f"'{shown(key)}' has no name; a line reads: key name")


_COUNTED = (
    "class|cls|category|cat|label|lbl|id|idx|index|type|group|species|taxon|synset|object|obj|item"
    "|target|folder|cluster|no"
)

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
"""C-130, F-16: capitals, a hyphen and a number are a name that people use."""


def code_like(name: str) -> bool:
    """Whether a class name is a number or a code that no text encoder can know.

    Such are `n01440764`, `17` and `sp_017`.
    """
    plain = name.strip()
    if _DESIGNATION.fullmatch(plain):
        return False
    return _CODES.fullmatch(plain) is not None
