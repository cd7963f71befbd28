"""iWildCam as WILDS distributes it (v2.0): photos of camera traps, some never trained on.

metadata.csv      a row an image; used are split, filename, y, location_remapped
categories.csv    y and name: what the classes are called, scientifically; `empty` is one of them
train/            the images of all splits

split in metadata.csv      train     id_val   val    id_test   test
split and domain here      train id  val id   val ood  test id  test ood
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from discl_ray.core.columns import joined
from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.data.config import IWildCamConfig
from discl_ray.data.file_lists import (
    accepted,
    check_folders,
    decode_published,
    folders_of,
    read_required,
    table_of_files,
)
from discl_ray.data.files import stamp_of
from discl_ray.data.listing import Listing, read_files
from discl_ray.data.root import guard, open_root
from discl_ray.data.text_files import (
    Problems,
    are_distinct,
    csv_rows,
    distinct,
    gathered,
    translated,
)
from discl_ray.data.wording import first_few, shown
from discl_ray.errors import DataError


class Placement(NamedTuple):
    """Where an image is used."""

    split: str
    """train, val or test."""
    domain: str
    """`id` at a camera that is trained on, `ood` at another one."""


SPLITS = {
    "train": Placement("train", "id"),
    "id_val": Placement("val", "id"),
    "val": Placement("val", "ood"),
    "id_test": Placement("test", "id"),
    "test": Placement("test", "ood"),
}
"""By the data set's own word for the split."""

METADATA = "metadata.csv"
"""Has the images."""

USED = ("split", "filename", "y", "location_remapped")
"""Its columns that are used."""

CATEGORIES = "categories.csv"
"""Has the names of the classes."""

LAYOUT = "WILDS' iwildcam_v2.0: metadata.csv, categories.csv and train/"
"""What errors say is needed."""

LABELS = "labels are 0, 1, 2, …"
"""The same about a cell of `y`."""

MOST_COLUMNS = 30
"""Columns that an error lists."""

_LABEL = re.compile(r"[0-9]{1,6}")
"""Short enough to be counted to."""

Row = tuple[str, dict[str, str]]
"""Where a row is, such as `line 3`, and its cells by column."""

IMAGES = pa.schema(
    [
        # relative to the root
        ("path", pa.string()),
        # `y`
        ("label", pa.int64()),
        # the data set's word for the split
        ("word", pa.string()),
        # the camera
        ("location", pa.string()),
    ]
)
"""The rows of metadata.csv."""


def iwildcam(config: IWildCamConfig, _seed: int) -> Listing:
    """Every row of metadata.csv; labels are `y`.

    A class's key is its scientific name, which `data.names` may translate. There are as many
    classes as the largest `y` says, with images or without. Images of one camera are a group. The
    stamp covers the tables and the folder's date, not each of two hundred thousand files:
    replacing one in place goes unnoticed.

    Raises DataError naming file, line and rule: a missing or duplicated column, a row of another
    length, an unknown split, a `y` that is not a label or has no name, a duplicated file, a
    refused path; or if a file or the folder is missing.
    """
    root = open_root(config.root)
    links = config.allow_links_outside
    metadata = read_required(root, METADATA, LAYOUT, links=links)
    categories = read_required(root, CATEGORIES, LAYOUT, links=links)
    rows = decode_published(METADATA, metadata)
    images = by_column(root, rows)
    if images is None:
        images = by_row(root, rows)
    label = images["label"]
    labels = set(label.unique().to_pylist())
    named = decode_published(CATEGORIES, categories)
    classes = _classes(named, labels)
    paths = images["path"]
    check_folders(root, METADATA, paths, links=links)
    table = table_of_files(
        sample_id=paths,
        path=paths,
        class_key=pa.array(classes, pa.string()).take(label),
        split=translated(images["word"], lambda word: SPLITS[word].split),
        domain=translated(images["word"], lambda word: SPLITS[word].domain),
        group=images["location"],
    )
    hashes = [sha256(metadata), sha256(categories)]
    return Listing(
        table=table,
        root=root,
        read=read_files,
        stamp=stamp_of(folders_of(root, paths), hashes),
        classes=classes,
    )


def by_column(root: Store, text: str) -> pa.Table | None:
    """IMAGES of metadata.csv; None if anything is wrong with a row.

    Raises DataError if a column is missing or duplicated.
    """
    problems = Problems(METADATA)
    rows = csv_rows(text, problems)
    _, header = next(rows, (1, []))
    positions = _positions(METADATA, header, USED)
    places = list(positions.values())
    columns = gathered(rows, len(header), places)
    if columns is None or problems:
        return None
    word, file, y, location = columns
    splits_known = all(text in SPLITS for text in distinct(word))
    labels_right = all(_LABEL.fullmatch(text) for text in distinct(y))
    cameras_named = all(text.strip() for text in distinct(location))
    if not (splits_known and labels_right and cameras_named):
        return None
    path = accepted(root, joined(["train/", file]))
    if path is None or not len(path) or not are_distinct(path):
        return None
    label = translated(y, int, pa.int64())
    return pa.table([path, label, word, location], schema=IMAGES)


def by_row(root: Store, text: str) -> pa.Table:
    """The same row by row. Raises DataError naming the lines that are wrong."""
    return pa.Table.from_pylist(list(_metadata(root, text)), schema=IMAGES)


def _metadata(root: Store, text: str) -> Iterator[dict[str, Any]]:
    """The rows of metadata.csv, by the columns of IMAGES."""
    problems = Problems(METADATA)
    first: dict[str, str] = {}
    for where, row in _table(METADATA, text, USED, problems):
        word = row["split"]
        if word not in SPLITS:
            allowed = ", ".join(SPLITS)
            problems.add(where, f"split '{shown(word)}' is none of {allowed}")
        if not _LABEL.fullmatch(row["y"]):
            problems.add(where, _no_label(row["y"]))
            continue
        location = row["location_remapped"]
        if not location.strip():
            problems.add(where, "location_remapped is empty")
        file = row["filename"]
        try:
            path = guard(root, f"train/{file}", links=True)
        except ValueError as error:
            problems.add(where, f"filename '{shown(file)}' {error}")
            continue
        line = first.setdefault(path, where)
        if line != where:
            problems.add(where, f"'{shown(file)}' is already in {line}")
        yield {"path": path, "label": int(row["y"]), "word": word, "location": location}
    problems.check()
    if not first:
        raise DataError(f"{METADATA}: has no row")


def _no_label(y: str) -> str:
    """The rule that a cell of `y` breaks."""
    return f"y = '{shown(y)}' is not a label; {LABELS}"


def _classes(text: str, labels: set[int]) -> list[str]:
    """Scientific names by label.

    Categories that no image can have are left out; WILDS numbers them 99999.
    """
    count = max(labels) + 1
    names = _category_names(text, count)
    unknown = sorted(labels - names.keys())
    if unknown:
        some = first_few([str(label) for label in unknown])
        raise DataError(f"{CATEGORIES}: has no name for y = {some}, which {METADATA} has")
    for label in range(count):
        if label not in names:
            range_ = f"labels are 0 to {count - 1} without a gap"
            raise DataError(f"{CATEGORIES}: has no name for y = {label}; {range_}")
    return [names[label] for label in range(count)]


def _category_names(text: str, count: int) -> dict[int, str]:
    """Scientific name of each label below `count` that categories.csv has."""
    problems = Problems(CATEGORIES)
    names: dict[int, str] = {}
    first: dict[str, str] = {}
    for where, row in _table(CATEGORIES, text, ("y", "name"), problems):
        name = row["name"].strip()
        if not _LABEL.fullmatch(row["y"]):
            problems.add(where, _no_label(row["y"]))
            continue
        label = int(row["y"])
        if label >= count:
            continue
        if not name:
            problems.add(where, "name is empty")
        elif label in names:
            other = shown(names[label])
            problems.add(where, f"y = {label} is '{other}' already")
        elif name in first:
            other = f"the name of another y in {first[name]} already"
            problems.add(where, f"'{shown(name)}' is {other}")
        else:
            names[label] = name
            first[name] = where
    problems.check()
    return names


def _table(file: str, text: str, columns: Sequence[str], problems: Problems) -> Iterator[Row]:
    """The rows of a CSV file, by the columns that are used."""
    rows = csv_rows(text, problems)
    _, header = next(rows, (1, []))
    positions = _positions(file, header, columns)
    for line, cells in rows:
        where = f"line {line}"
        if len(cells) == len(header):
            row = {name: cells[at] for name, at in positions.items()}
            yield where, row
        else:
            fields = f"has {len(cells)} fields, the header has {len(header)}"
            problems.add(where, fields)


def _positions(file: str, header: Sequence[str], columns: Sequence[str]) -> Mapping[str, int]:
    """Which cell of a row each column is; raises DataError if one is missing or duplicated."""
    for name in columns:
        count = header.count(name)
        if count == 1:
            continue
        columns_ = [shown(column, 40) for column in header[:MOST_COLUMNS]]
        found = ", ".join(columns_) or "none"
        problem = f"{count} columns are called" if count else "no column"
        raise DataError(f"{file}: line 1: {problem} '{name}'; its columns are {found}")
    return {name: header.index(name) for name in columns}
