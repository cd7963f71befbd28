"""ImageNet-LT: ImageNet's folders and the published lists.

<lists>/ImageNet_LT_{train,val,test}.txt     train/n01440764/n01440764_190.JPEG 0
train/<WordNet id>/*.JPEG                    the images of the train and the val list
val/<WordNet id>/*.JPEG or val/*.JPEG        those of the test list
classnames.txt or LOC_synset_mapping.txt     optional: n01440764 tench, Tinca tinca
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.data.config import ImageNetLTConfig
from discl_ray.data.file_lists import check_folders, folders_of, read_text, table_of_files
from discl_ray.data.files import stamp_of
from discl_ray.data.listing import Listing, read_files
from discl_ray.data.root import guard, open_root
from discl_ray.data.text_files import Problems
from discl_ray.data.wording import shown
from discl_ray.data.wordnet import wordnet_names
from discl_ray.errors import DataError

LISTS = {
    "train": "ImageNet_LT_train.txt",
    "val": "ImageNet_LT_val.txt",
    "test": "ImageNet_LT_test.txt",
}
"""File by split."""

NAME_LISTS = ("classnames.txt", "LOC_synset_mapping.txt")
"""Files that may name the classes; the first that exists is used."""

LAYOUT = "ImageNet_LT_{train,val,test}.txt in data.lists, and ImageNet's train/ and val/"
"""What errors say is needed."""

EXAMPLE = "train/n01440764/n01440764_190.JPEG 0"
"""A line of a list."""

_WORDNET_ID = re.compile(r"(?:^|/)(n\d{8})(?=[/_])")
"""In a class folder's name, or at the beginning of a file's."""

_FOLDER = re.compile(r"/n\d{8}/")
"""A class folder, which ImageNet's val/ does not have as it is unpacked."""

_LABEL = re.compile(r"[0-9]{1,6}")
"""Short enough to be counted to."""


@dataclass
class _Rows:
    """The rows of one list, by column."""

    paths: list[str] = field(default_factory=list)
    """As the list has them, which is not always where the images are."""
    labels: list[int] = field(default_factory=list)


def imagenet_lt(config: ImageNetLTConfig, _seed: int) -> Listing:
    """The rows of the three lists, in their order; labels are the lists' own, keys WordNet ids.

    A class is called what a list of names says, else its first WordNet lemma. Test images may lie
    in `val/` without class folders, as ImageNet is unpacked. The stamp covers the lists and the
    images' folders, not each of a hundred thousand files: replacing one in place goes unnoticed
    unless its folder's date changes.

    Raises DataError naming file and line: no path and label, a refused or duplicated path, a label
    with two WordNet ids or a WordNet id with two labels, a label that is left out; or if a list or
    all folders of one are missing.
    """
    root = open_root(config.root)
    links = config.allow_links_outside
    classes = _Classes()
    parser = _Parser(root, classes)
    rows: dict[str, _Rows] = {}
    hashes: list[str] = []
    texts = {name: _read_list(root, config, name) for name in LISTS.values()}
    for name, text in texts.items():
        rows[name] = parser.rows(name, text)
        hashes.append(sha256(text.encode()))
    # only now: a label's WordNet id may be in another list than its row
    keys = classes.in_order()
    ids: list[str] = []
    places: list[str] = []
    class_keys: list[str] = []
    splits: list[str] = []
    for split, name in LISTS.items():
        found = rows[name]
        count = len(found.paths)
        ids += found.paths
        places += _places(root, name, found.paths, links=links)
        class_keys += [keys[label] for label in found.labels]
        splits += [split] * count
    return Listing(
        table=table_of_files(sample_id=ids, path=places, class_key=class_keys, split=splits),
        root=root,
        read=read_files,
        stamp=stamp_of(folders_of(root, places), hashes),
        classes=keys,
        names=_names(root, keys, links=links),
    )


def _read_list(root: Store, config: ImageNetLTConfig, name: str) -> str:
    """The text of a list. Raises DataError if it is missing or empty."""
    place = posixpath.join(config.lists, name)
    path = posixpath.normpath(place)  # data.lists is `.` by default
    text = read_text(root, path, LAYOUT, links=config.allow_links_outside)
    if not text.strip():
        raise DataError(f"{name}: is empty")
    return text


_KeyAt = tuple[str, str]
_LabelAt = tuple[int, str]


class _Classes:
    """Which label is which WordNet id, according to the lines."""

    def __init__(self) -> None:
        self._id_of: dict[int, _KeyAt] = {}
        """Label -> WordNet id, and the line that says so."""
        self._label_of: dict[str, _LabelAt] = {}
        """WordNet id -> label, and the line that says so."""
        self._first: dict[int, str] = {}
        """Label -> its first line, with a WordNet id or without."""

    def add(self, label: int, wordnet_id: str | None, where: str) -> str | None:
        """Takes one more line; returns the rule it breaks."""
        self._first.setdefault(label, where)
        if wordnet_id is None:  # a path without class folder: the label alone tells the class
            return None
        other, line = self._id_of.setdefault(label, (wordnet_id, where))
        if other != wordnet_id:
            return f"label {label} is {wordnet_id} here and {other} in {line}"
        number, line = self._label_of.setdefault(wordnet_id, (label, where))
        if number != label:
            return f"{wordnet_id} has label {label} here and {number} in {line}"
        return None

    def in_order(self) -> list[str]:
        """WordNet ids by label; raises DataError if one is unknown or left out."""
        for label, where in self._first.items():
            if label not in self._id_of:
                raise DataError(
                    f"{where}: no line with label {label} has a WordNet id "
                    "such as n01440764 in its path"
                )
        keys: list[str] = []
        count = len(self._id_of)
        for label in range(count):
            if label not in self._id_of:
                lists = ", ".join(LISTS.values())
                raise DataError(
                    f"{lists}: no line has label {label}; labels are 0, 1, 2, … without a gap"
                )
            key, _ = self._id_of[label]
            keys.append(key)
        return keys


class _Parser:
    """Reads the lists one after the other: a path is in one of them, once."""

    def __init__(self, root: Store, classes: _Classes) -> None:
        self._root = root
        self._classes = classes
        self._first: dict[str, str] = {}
        """Path -> the line that it is in."""

    def rows(self, name: str, text: str) -> _Rows:
        """The rows of a list. Raises DataError naming the lines that are wrong."""
        problems = Problems(name)
        rows = _Rows()
        lines = text.split("\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{name} line {number}"
            try:
                path, label = self._parse(line, where)
            except ValueError as error:
                problems.add(f"line {number}", str(error))
                continue
            rows.paths.append(path)
            rows.labels.append(label)
        problems.check()
        return rows

    def _parse(self, line: str, where: str) -> tuple[str, int]:
        """Path and label of a line; raises ValueError with the rule it breaks."""
        # from the right: a path may have blanks, a label has none
        given, _, word = line.strip().rpartition(" ")
        if not given or not _LABEL.fullmatch(word):
            raise ValueError(f"'{shown(line)}' is not a path and a label, such as {EXAMPLE}")
        label = int(word)
        try:
            path = guard(self._root, given, links=True)
        except ValueError as error:
            raise ValueError(f"path '{shown(given)}' {error}") from error
        match = _WORDNET_ID.search(path)
        wordnet_id = match[1] if match else None
        rule = self._classes.add(label, wordnet_id, where)
        if rule:
            raise ValueError(rule)
        first = self._first.setdefault(path, where)
        if first != where:
            raise ValueError(f"'{shown(path)}' is already in {first}")
        return path, label


def _places(root: Store, name: str, paths: list[str], *, links: bool) -> list[str]:
    """Where a list's images are: as it says, or without the class folder."""
    flat = [_FOLDER.sub("/", path) for path in paths]
    # the first image tells it for all: to look for each would be a request an image
    as_listed = paths[0]
    without_folder = flat[0]
    has_folders = as_listed == without_folder or root.exists(as_listed)
    if has_folders or not root.exists(without_folder):
        check_folders(root, name, paths, links=links)
        return paths
    try:
        return [guard(root, path, links=True) for path in flat]
    except ValueError as error:
        folder = posixpath.dirname(without_folder)
        raise DataError(f"{name}: an image under {folder}/ {error}") from error


def _names(root: Store, keys: Sequence[str], *, links: bool) -> dict[str, str]:
    """WordNet id -> name: those of a list of names that no other class has, else WordNet's."""
    listed = _given_names(root, links=links)
    given: dict[str, str] = {}
    for key in keys:
        if key in listed:
            given[key] = listed[key]
    counts = Counter(name.casefold() for name in given.values())
    names: dict[str, str] = {}
    for key, name in given.items():
        if counts[name.casefold()] == 1:
            names[key] = name
    if len(names) == len(keys):
        return names
    return wordnet_names(keys) | names


def _given_names(root: Store, *, links: bool) -> dict[str, str]:
    """WordNet id -> name in a list of names; empty if there is none."""
    for file in NAME_LISTS:
        if root.exists(file):
            text = read_text(root, file, LAYOUT, links=links)
            return _parse_names(file, text)
    return {}


def _parse_names(file: str, text: str) -> dict[str, str]:
    """WordNet id -> its first lemma. Raises DataError naming the lines without one."""
    problems = Problems(file)
    given: dict[str, str] = {}
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        key, _, words = line.strip().partition(" ")
        if key and not words.strip():
            rule = f"'{shown(key)}' has no name; a line reads: n01440764 tench"
            problems.add(f"line {number}", rule)
        lemma, *_ = words.split(",")
        given[key] = lemma.strip()
    problems.check()
    return given
