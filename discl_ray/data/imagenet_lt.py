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

from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.data.config import ImageNetLTConfig
from discl_ray.data.file_lists import (
    check_folders,
    decoded,
    folders_of,
    read_required,
    table_of_files,
)
from discl_ray.data.files import Problems, stamp_of
from discl_ray.data.listing import Listing, read_files
from discl_ray.data.root import guard, open_root
from discl_ray.data.wording import shown
from discl_ray.data.wordnet import wordnet_names
from discl_ray.errors import DataError

LISTS = {split: f"ImageNet_LT_{split}.txt" for split in ("train", "val", "test")}


NAME_LISTS = ("classnames.txt", "LOC_synset_mapping.txt")
"""Files that may say what the classes are called; the first that is there."""


LAYOUT = "ImageNet_LT_{train,val,test}.txt in data.lists, and ImageNet's train/ and val/"


_WORDNET_ID = re.compile(r"(?:^|/)(n\d{8})(?=[/_])")


_FOLDER = re.compile(r"/n\d{8}/")


_LABEL = re.compile(r"[0-9]{1,6}")


def imagenet_lt(config: ImageNetLTConfig, _seed: int) -> Listing:
    """The rows of the three lists, in their order. Labels are those of the lists, each with its WordNet id as the key.

    A class is called what a list of names says, else its first WordNet lemma. Test images may lie in `val/` without class folders,
    as ImageNet is unpacked. The stamp covers the lists and the folders of the images, not each of a hundred thousand files: one
    that is replaced in place, without its folder's date, goes unnoticed.

    Raises DataError naming file and line: no path and label, a refused path, a path that stands twice, a label with two WordNet ids
    or a WordNet id with two labels, a label that is left out; or if a list or all folders of one are missing.
    """
    root = open_root(config.root)
    texts = {split: _list(root, config, name) for split, name in LISTS.items()}
    classes = _Classes()
    rows: dict[str, list[tuple[str, int]]] = {}
    seen: dict[str, str] = {}
    for split, text in texts.items():
        rows[split] = _rows(root, LISTS[split], text, classes, seen)
    keys = classes.in_order(rows)
    ids = [path for split in LISTS for path, _ in rows[split]]
    places: list[str] = []
    for split, name in LISTS.items():
        places += _places(
            root, name, [path for path, _ in rows[split]], links=config.allow_links_outside
        )
    table = table_of_files(
        sample_id=ids,
        path=places,
        class_key=[keys[label] for split in LISTS for _, label in rows[split]],
        split=[split for split in LISTS for _ in rows[split]],
    )
    return Listing(
        table=table,
        root=root,
        read=read_files,
        stamp=stamp_of(
            folders_of(root, places), [sha256(text.encode()) for text in texts.values()]
        ),
        classes=keys,
        names=_names(root, keys, links=config.allow_links_outside),
    )


def _list(root: Store, config: ImageNetLTConfig, name: str) -> str:
    path = posixpath.normpath(posixpath.join(config.lists, name))
    text = decoded(name, read_required(root, path, LAYOUT, links=config.allow_links_outside))
    if not text.strip():
        raise DataError(f"{name}: is empty")
    return text


class _Classes:
    """Which label is which WordNet id, by what the lines say."""

    def __init__(self) -> None:
        self._id_of: dict[int, tuple[str, str]] = {}
        self._label_of: dict[str, tuple[int, str]] = {}
        self._first: dict[int, str] = {}

    def add(self, label: int, wordnet_id: str | None, where: str) -> str | None:
        """One line more; returns the rule it breaks."""
        self._first.setdefault(label, where)
        if wordnet_id is None:  # its label says the class
            return None
        other, line = self._id_of.setdefault(label, (wordnet_id, where))
        if other != wordnet_id:
            return f"label {label} is {wordnet_id} here and {other} in {line}"
        number, line = self._label_of.setdefault(wordnet_id, (label, where))
        return (
            None
            if number == label
            else f"{wordnet_id} has label {label} here and {number} in {line}"
        )

    def in_order(self, rows: Mapping[str, Sequence[tuple[str, int]]]) -> list[str]:
        """WordNet ids by label; raises DataError if one is not known or left out."""
        for label, where in self._first.items():
            if label not in self._id_of:
                raise DataError(
                    f"{where}: no line with label {label} has a WordNet id such as n01440764 in its path"
                )
        if gap := next(
            (label for label in range(len(self._id_of)) if label not in self._id_of), None
        ):
            raise DataError(
                f"{', '.join(LISTS.values())}: no line has label {gap}; labels are 0, 1, 2, … without a gap"
            )
        return [self._id_of[label][0] for label in range(len(self._id_of))]


def _rows(
    root: Store, name: str, text: str, classes: _Classes, seen: dict[str, str]
) -> list[tuple[str, int]]:
    """(path, label) of each line."""
    problems = Problems(name)
    rows: list[tuple[str, int]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        given, _, label = line.strip().rpartition(" ")
        if not given or not _LABEL.fullmatch(label):
            problems.add(
                f"line {number}",
                f"'{shown(line)}' is no path and label, such as train/n01440764/n01440764_190.JPEG 0",
            )
            continue
        try:
            path = guard(root, given, links=True)
        except ValueError as error:
            problems.add(f"line {number}", f"path '{shown(given)}' {error}")
            continue
        where = f"{name} line {number}"
        wordnet_id = _WORDNET_ID.search(path)
        if rule := classes.add(int(label), wordnet_id and wordnet_id[1], where):
            problems.add(f"line {number}", rule)
        if seen.setdefault(path, where) != where:
            problems.add(f"line {number}", f"'{shown(path)}' stands in {seen[path]} already")
        rows.append((path, int(label)))
    problems.check()
    return rows


def _places(root: Store, name: str, paths: list[str], *, links: bool) -> list[str]:
    """Where a list's images lie: as it says, or without the class folder."""
    flat = [_FOLDER.sub("/", path) for path in paths]
    if flat[0] == paths[0] or root.exists(paths[0]) or not root.exists(flat[0]):
        check_folders(root, name, paths, links=links)
        return paths
    try:
        return [guard(root, path, links=True) for path in flat]
    except ValueError as error:
        raise DataError(f"{name}: an image under {posixpath.dirname(flat[0])}/ {error}") from error


def _names(root: Store, keys: Sequence[str], *, links: bool) -> dict[str, str]:
    """WordNet id -> name: those of a list of names that no other class has, and WordNet's."""
    file = next((name for name in NAME_LISTS if root.exists(name)), None)
    given: dict[str, str] = {}
    problems = Problems(file or "")
    text = decoded(file, read_required(root, file, LAYOUT, links=links)) if file else ""
    for number, line in enumerate(text.split("\n") if file else (), 1):
        key, _, words = line.strip().partition(" ")
        if key and not words.strip():
            problems.add(
                f"line {number}", f"'{shown(key)}' has no name; a line reads: n01440764 tench"
            )
        given[key] = words.split(",")[0].strip()
    problems.check()
    counts = Counter(given[key].casefold() for key in keys if key in given)
    names = {key: given[key] for key in keys if key in given and counts[given[key].casefold()] == 1}
    return names if len(names) == len(keys) else wordnet_names(keys) | names
