"""iNaturalist 2018: annotations in COCO's format.

The val images are the test split, as is usual; val is drawn from train later.

train2018.json, val2018.json        images (id, file_name), annotations (image_id, category_id),
                                    categories (id, name)
train_val2018/<group>/<category>/   the images, where the annotations say they are
categories.json                     optional: the scientific names, which the annotations hide
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from discl_ray.core.columns import all_true, is_in, places_in
from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.data.config import INaturalistConfig
from discl_ray.data.file_lists import (
    check_folders,
    decode_published,
    folders_of,
    read_required,
    table_of_files,
)
from discl_ray.data.files import stamp_of
from discl_ray.data.listing import Listing, read_files
from discl_ray.data.paths import guarded
from discl_ray.data.root import guard, open_root
from discl_ray.data.splits import NONE
from discl_ray.data.text_files import Problems
from discl_ray.data.wording import shown
from discl_ray.errors import DataError

TRAIN = "train2018.json"
"""Its categories are those of both files."""

SPLITS = {TRAIN: "train", "val2018.json": "test"}
"""By file."""

NAMES = "categories.json"
"""Published apart: the annotations have codes where the names should be."""

LAYOUT = "train2018.json, val2018.json and train_val2018/"
"""What errors say is needed."""

WORDS = {int: "a whole number", str: "text"}
"""Types of fields in words."""

Fields = Mapping[str, type]
"""Name of a field -> its type."""

CATEGORY = {"id": int, "name": str}
IMAGE = {"id": int, "file_name": str}
ANNOTATION = {"image_id": int, "category_id": int}
"""Fields of an entry that are used, and their types."""

PARTS = {
    "images": {"id": pa.int64(), "file_name": pa.string()}.items(),
    "annotations": {"image_id": pa.int64(), "category_id": pa.int64()}.items(),
    "categories": {"id": pa.int64(), "name": pa.string()}.items(),
}
"""The same as columns, by the list they are in."""

IMAGES = pa.schema([("path", pa.string()), ("category", pa.int64())])
"""The images of a file, in its order."""

DEEPEST = 20
"""Brackets within each other in a file that is read as columns; the published ones have 3."""

CHUNK = 2**20
"""Bytes that are looked at at once."""

ById = Mapping[int, str]
"""Names or paths by the id that the annotations use."""

Entry = tuple[str, tuple[Any, ...]]
"""Where an entry is, such as `images[3]`, and its fields."""


def inaturalist(config: INaturalistConfig, _seed: int) -> Listing:
    """Every annotated image, in the order of the files.

    A class's key is its category id; labels are in the order of these ids; a category without an
    image is a class as well. The stamp covers the annotations and the images' folders, not each of
    half a million files: replacing one in place goes unnoticed unless its folder's date changes.

    Raises DataError naming file, entry and rule: a field that is missing or of another type, a
    duplicated id, an image without an annotation or with two that differ, an annotation without
    an image or category, a refused path; or if a file or all folders of one are missing.
    """
    root = open_root(config.root)
    links = config.allow_links_outside
    data = {name: read_required(root, name, LAYOUT, links=links) for name in SPLITS}
    hashes = [sha256(text) for text in data.values()]
    names: dict[int, str] = {}
    tables: list[pa.Table] = []
    splits: list[pa.Array] = []
    for name, split in SPLITS.items():
        # taken out: the text takes as much memory as all of the columns
        file = _Annotations(root, name, data.pop(name))
        names = names or file.categories()
        images = file.images(names, tables)
        check_folders(root, name, images["path"], links=links)
        tables.append(images)
        splits.append(pa.repeat(split, images.num_rows))
    images = pa.concat_tables(tables)
    scientific_names = _scientific_names(root, links=links)
    for category, scientific in scientific_names.items():
        if category in names:
            names[category] = scientific
    return Listing(
        table=table_of_files(
            sample_id=images["path"],
            path=images["path"],
            class_key=images["category"].cast(pa.string()),
            split=pa.chunked_array(splits, pa.string()),
        ),
        root=root,
        read=read_files,
        stamp=stamp_of(folders_of(root, images["path"]), hashes),
        classes=[str(category) for category in sorted(names)],
        names={str(category): name for category, name in names.items()},
    )


class _Annotations:
    """One of the two files: by columns if nothing is wrong with it, else entry by entry."""

    def __init__(self, root: Store, name: str, data: bytes) -> None:
        self._root = root
        self._name = name
        self._data = data
        self._columns = columns_of(data)
        if self._columns is None:
            self._value = _parsed(name, data)

    def categories(self) -> dict[int, str]:
        """Category id -> name."""
        if self._columns is not None:
            found = self._columns["categories"]
            names = [name.strip() for name in found["name"].to_pylist()]
            by_id = dict(zip(found["id"].to_pylist(), names, strict=True))
            if len(by_id) == len(names):
                return by_id
        return _categories(self._name, self._entry_by_entry())

    def images(self, categories: ById, others: Sequence[pa.Table]) -> pa.Table:
        """IMAGES of this file; `others` are those of the other files."""
        if self._columns is not None:
            images = _images_by_column(self._root, self._columns, categories)
            if images is not None and _are_unique([*others, images]):
                return images
        paths = {path for table in others for path in table["path"].to_pylist()}
        found = _images_by_row(self._root, self._name, self._entry_by_entry(), categories, paths)
        return pa.table([list(found), list(found.values())], schema=IMAGES)

    def _entry_by_entry(self) -> Any:
        """The file's JSON."""
        if self._columns is not None:  # which tell that something is wrong, and not where
            return _parsed(self._name, self._data)
        return self._value


def columns_of(data: bytes) -> dict[str, pa.Table] | None:
    """The used fields of a file of annotations by its lists; None if it is not what it should be.

    Arrow reads JSON a line at a time, and a file of annotations is one line of one object.
    """
    if not is_one_object(data):
        return None
    lists = [pa.field(part, pa.list_(pa.struct(list(fields)))) for part, fields in PARTS.items()]
    reading = pj.ReadOptions(use_threads=False, block_size=len(data) + 1)
    parsing = pj.ParseOptions(
        explicit_schema=pa.schema(lists),
        newlines_in_values=True,
        unexpected_field_behavior="ignore",
    )
    try:
        table = pj.read_json(pa.BufferReader(data), reading, parsing)
        table.validate(full=True)  # text that is not UTF-8
    except (pa.ArrowException, OverflowError):
        return None
    if table.num_rows != 1:
        return None
    found: dict[str, pa.Table] = {}
    for part in PARTS:
        entries = table[part].combine_chunks().flatten()
        columns = pa.Table.from_struct_array(entries)
        nulls = [column.null_count for column in columns.columns]
        if entries.null_count or any(nulls) or table[part].null_count:
            return None
        found[part] = columns
    return found


def is_one_object(data: bytes, chunk: int = CHUNK) -> bool:
    """Whether brackets say that JSON is one object, nested at most DEEPEST.

    Arrow's parser, unlike Python's, dies of brackets without end and of a bare `null`.
    """
    text = memoryview(data)[: len(data.rstrip())]
    # behind two backslashes a quote is not what it seems to be below
    if text[:1] != b"{" or text[-1:] != b"}" or b"\\\\" in data:
        return False
    codes = np.frombuffer(text, np.uint8)
    depth = 0
    in_text = False
    for start in range(0, len(codes), chunk):
        here = codes[start : start + chunk]
        before = codes[start - 1 : start + len(here) - 1] if start else np.roll(here, 1)
        quotes = (here == ord('"')) & (before != ord("\\"))
        inside = np.logical_xor.accumulate(quotes) ^ in_text
        opening = ((here == ord("[")) | (here == ord("{"))) & ~inside
        closing = ((here == ord("]")) | (here == ord("}"))) & ~inside
        depths = depth + np.cumsum(opening.astype(np.int8) - closing, dtype=np.int32)
        open_until = start + int(np.argmin(depths > 0)) if depths.min() <= 0 else len(codes)
        if depths.max() > DEEPEST or open_until < len(codes) - 1:
            return False
        depth = int(depths[-1])
        in_text = bool(inside[-1])
    return depth == 0


def _images_by_column(
    root: Store, columns: Mapping[str, pa.Table], categories: ById
) -> pa.Table | None:
    """IMAGES of a file; None if anything is wrong with it."""
    images = columns["images"]
    annotations = columns["annotations"]
    refused: list[int] = []
    path = guarded(root, images["file_name"], lambda row, *_: refused.append(row))
    place = places_in(annotations["image_id"], images["id"])
    known = is_in(annotations["category_id"], list(categories))
    if refused or place.null_count or not all_true(known):
        return None
    if len(images["id"].unique()) < images.num_rows:
        return None
    found = annotations["category_id"].to_numpy()
    image = place.to_numpy()
    category = np.full(images.num_rows, NONE, np.int64)
    category[image] = found
    one_each = np.array_equal(category[image], found)
    annotated = np.bincount(image, minlength=images.num_rows) > 0
    if not one_each or not annotated.all():
        return None
    return pa.table([path, pa.array(category)], schema=IMAGES)


def _are_unique(tables: Sequence[pa.Table]) -> bool:
    """Whether no path is in two rows of IMAGES."""
    paths = pa.concat_tables(tables)["path"]
    return len(paths.unique()) == len(paths)


def _scientific_names(root: Store, *, links: bool) -> dict[int, str]:
    """Category id -> name in `categories.json`; empty if there is no such file."""
    if not root.exists(NAMES):
        return {}
    data = read_required(root, NAMES, LAYOUT, links=links)
    value = _parsed(NAMES, data)
    return _categories(NAMES, value)


def _parsed(name: str, data: bytes) -> Any:
    """A file's JSON. Raises DataError with line and character if it is none."""
    text = decode_published(name, data)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, character {error.colno}"
        problem = f"is not JSON: {error.msg}"
        raise DataError(f"{name}: {where}: {problem}") from error
    except (ValueError, RecursionError) as error:
        # a number of thousands of digits, or brackets nested without end
        raise DataError(f"{name}: cannot be read as JSON: {error}") from error


def _entries(value: Any, part: str, fields: Fields, problems: Problems) -> Iterator[Entry]:
    """The entries of a list in a file; what lacks a field goes to `problems`."""
    entries = value.get(part) if isinstance(value, dict) else None
    if not isinstance(entries, list):
        problems.add(part, "a list is needed")
        return
    for number, entry in enumerate(entries):
        where = f"{part}[{number}]"
        if not isinstance(entry, dict):
            problems.add(where, "an object is needed")
            continue
        wrong = _wrong_field(entry, fields)
        if wrong is None:
            values = [entry[name] for name in fields]
            yield where, tuple(values)
            continue
        rule = _broken_rule(entry, wrong, fields)
        problems.add(f"{where}.{wrong}", rule)


def _broken_rule(entry: Mapping[str, Any], name: str, fields: Fields) -> str:
    """What is wrong with a field."""
    given = "is missing"
    if name in entry:
        value = json.dumps(entry[name])
        given = f"is {shown(value, 40)}"
    kind = fields[name]
    needed = WORDS[kind]
    return f"{given}; {needed} is needed"


def _wrong_field(entry: Mapping[str, Any], fields: Fields) -> str | None:
    """The first field that is missing or of another type."""
    for name, kind in fields.items():
        value = entry.get(name)
        # not isinstance, for which `true` is a number
        if type(value) is not kind:
            return name
    return None


def _categories(file: str, value: Any) -> dict[int, str]:
    """Category id -> name, from the list `categories`, or a file that is only that list."""
    problems = Problems(file)
    found: dict[int, str] = {}
    if isinstance(value, list):
        value = {"categories": value}
    entries = _entries(value, "categories", CATEGORY, problems)
    for where, (category, name) in entries:
        if category in found:
            problems.add(where, f"id {category} is duplicated")
        found[category] = name.strip()
    problems.check()
    return found


def _images_by_row(
    root: Store, file: str, value: Any, categories: ById, others: set[str]
) -> dict[str, int]:
    """Path -> category id, in the order of the images; `others` are paths of other files.

    Raises DataError naming the entries that are wrong.
    """
    problems = Problems(file)
    paths: dict[int, str] = {}
    first: dict[int, str] = {}
    entries = _entries(value, "images", IMAGE, problems)
    for where, (image, name) in entries:
        try:
            path = guard(root, name, links=True)
        except ValueError as error:
            rule = f"'{shown(name)}' {error}"
            problems.add(f"{where}.file_name", rule)
            continue
        if image in paths:
            other = first[image]
            problems.add(where, f"id {image} is already in {other}")
        elif path in others:
            problems.add(where, f"'{shown(path)}' is duplicated")
        paths[image] = path
        first[image] = where
        others.add(path)
    # reported before the annotations are read, which would repeat each of these problems
    problems.check()
    labels = _labels(value, paths, categories, problems)
    for image, where in first.items():
        if image not in labels:
            problems.add(where, f"image {image} has no annotation")
    problems.check()
    return {path: labels[image] for image, path in paths.items()}


def _labels(value: Any, paths: ById, categories: ById, problems: Problems) -> dict[int, int]:
    """Image id -> category id."""
    labels: dict[int, int] = {}
    first: dict[int, str] = {}
    entries = _entries(value, "annotations", ANNOTATION, problems)
    for where, (image, category) in entries:
        if image not in paths:
            problems.add(where, f"there is no image with id {image}")
            continue
        if category not in categories:
            problems.add(where, f"there is no category with id {category}")
            continue
        other = labels.setdefault(image, category)
        line = first.setdefault(image, where)
        if other != category:
            both = f"category {category} here and {other} in {line}"
            problems.add(where, f"image {image} is {both}")
    return labels
