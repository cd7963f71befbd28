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
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

import pyarrow as pa

from discl_ray.core.columns import Column
from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.data.config import ImageNetLTConfig
from discl_ray.data.file_lists import accepted, check_folders, folders_of, read_text, table_of_files
from discl_ray.data.files import stamp_of
from discl_ray.data.listing import Listing, read_files
from discl_ray.data.paths import guarded
from discl_ray.data.root import guard, open_root
from discl_ray.data.text_files import TEXT, Problems, are_distinct, distinct, translated
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

ROWS = pa.schema({"path": TEXT, "label": pa.int64()})
"""The rows of a list. Paths are as the list has them, which is not always where the images are."""


class Lists(NamedTuple):
    """What the three lists say."""

    rows: dict[str, pa.Table]
    """ROWS by the list's name."""
    keys: list[str]
    """WordNet ids by label."""


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
    texts = {name: _read_list(root, config, name) for name in LISTS.values()}
    lists = by_column(root, texts) or by_row(root, texts)
    class_keys = pa.array(lists.keys, TEXT)
    tables: list[pa.Table] = []
    for split, name in LISTS.items():
        rows = lists.rows[name]
        listed = table_of_files(
            sample_id=rows["path"],
            path=_places(root, name, rows["path"], links=links),
            class_key=class_keys.take(rows["label"]),
            split=pa.repeat(split, rows.num_rows),
        )
        tables.append(listed)
    table = pa.concat_tables(tables)
    hashes = [sha256(text.encode()) for text in texts.values()]
    return Listing(
        table=table,
        root=root,
        read=read_files,
        stamp=stamp_of(folders_of(root, table["path"]), hashes),
        classes=lists.keys,
        names=_names(root, lists.keys, links=links),
    )


def _read_list(root: Store, config: ImageNetLTConfig, name: str) -> str:
    """The text of a list. Raises DataError if it is missing or empty."""
    place = posixpath.join(config.lists, name)
    path = posixpath.normpath(place)  # data.lists is `.` by default
    text = read_text(root, path, LAYOUT, links=config.allow_links_outside)
    if not text.strip():
        raise DataError(f"{name}: is empty")
    return text


def by_column(root: Store, texts: Mapping[str, str]) -> Lists | None:
    """What the lists say; None if anything is wrong with one. `texts` are by the lists' names."""
    rows: dict[str, pa.Table] = {}
    for name, text in texts.items():
        found = _rows_by_column(root, text)
        if found is None:
            return None
        rows[name] = found
    every = pa.concat_tables(list(rows.values()))
    keys = _keys(every)
    if keys is None or not are_distinct(every["path"]):
        return None
    return Lists(rows, keys)


def _rows_by_column(root: Store, text: str) -> pa.Table | None:
    """ROWS of a list; None if a line is wrong by itself."""
    given: list[str] = []
    words: list[str] = []
    for line in text.split("\n"):
        path, word = _split_line(line)
        if word:
            given.append(path)
            words.append(word)
    word = pa.array(words, TEXT)
    path = accepted(root, pa.array(given, TEXT))
    if path is None or not all(_LABEL.fullmatch(text) for text in distinct(word)):
        return None
    label = translated(word, int, pa.int64())
    return pa.table([path, label], schema=ROWS)


def _keys(rows: pa.Table) -> list[str] | None:
    """WordNet ids by label; None if labels and ids are not one to one, or one is left out."""
    found = [_wordnet_id(path) for path in rows["path"].to_pylist()]
    with_ids = pa.table({"label": rows["label"], "id": pa.array(found, TEXT)})
    pairs = with_ids.group_by(["label", "id"]).aggregate([]).to_pylist()
    # a path without class folder has no id: the label alone tells the class
    with_id = [pair for pair in pairs if pair["id"] is not None]
    key_of = {pair["label"]: pair["id"] for pair in with_id}
    keys = [key_of[label] for label in sorted(key_of)]
    labels = {pair["label"] for pair in pairs}
    complete = key_of.keys() == labels == set(range(len(keys)))
    one_to_one = len(with_id) == len(keys) == len(set(keys))
    return keys if complete and one_to_one else None


def by_row(root: Store, texts: Mapping[str, str]) -> Lists:
    """The same line by line. Raises DataError naming the lines that are wrong."""
    classes = _Classes()
    parser = _Parser(root, classes)
    rows = {name: parser.rows(name, text) for name, text in texts.items()}
    # only now: a label's WordNet id may be in another list than its row
    return Lists(rows, classes.in_order())


def _split_line(line: str) -> tuple[str, str]:
    """Path and label of a line, as they are written; both empty if it is blank."""
    # from the right: a path may have blanks, a label has none
    path, _, word = line.strip().rpartition(" ")
    return path, word


def _wordnet_id(path: str) -> str | None:
    """The WordNet id in a path; None if it has none."""
    match = _WORDNET_ID.search(path)
    return match[1] if match else None


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

    def rows(self, name: str, text: str) -> pa.Table:
        """ROWS of a list. Raises DataError naming the lines that are wrong."""
        problems = Problems(name)
        paths: list[str] = []
        labels: list[int] = []
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
            paths.append(path)
            labels.append(label)
        problems.check()
        return pa.table([paths, labels], schema=ROWS)

    def _parse(self, line: str, where: str) -> tuple[str, int]:
        """Path and label of a line; raises ValueError with the rule it breaks."""
        given, word = _split_line(line)
        if not given or not _LABEL.fullmatch(word):
            raise ValueError(f"'{shown(line)}' is not a path and a label, such as {EXAMPLE}")
        label = int(word)
        try:
            path = guard(self._root, given, links=True)
        except ValueError as error:
            raise ValueError(f"path '{shown(given)}' {error}") from error
        rule = self._classes.add(label, _wordnet_id(path), where)
        if rule:
            raise ValueError(rule)
        first = self._first.setdefault(path, where)
        if first != where:
            raise ValueError(f"'{shown(path)}' is already in {first}")
        return path, label


def _places(root: Store, name: str, paths: Column, *, links: bool) -> Column:
    """Where a list's images are: as it says, or without the class folder."""
    # the first image tells it for all: to look for each would be a request an image
    as_listed = paths[0].as_py()
    without_folder = _FOLDER.sub("/", as_listed)
    has_folders = as_listed == without_folder or root.exists(as_listed)
    if has_folders or not root.exists(without_folder):
        check_folders(root, name, paths, links=links)
        return paths

    def refuse(_row: int, _path: str, error: ValueError) -> NoReturn:
        folder = posixpath.dirname(without_folder)
        raise DataError(f"{name}: an image under {folder}/ {error}") from error

    flat = [_FOLDER.sub("/", path) for path in paths.to_pylist()]
    return guarded(root, pa.array(flat, TEXT), refuse)


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
