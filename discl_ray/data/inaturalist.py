"""iNaturalist 2018: annotations in COCO's format.

The val images are the test split, as is usual; val is drawn from train later.

train2018.json, val2018.json        images (id, file_name), annotations (image_id, category_id),
                                    categories (id, name)
train_val2018/<group>/<category>/   the images, where the annotations say they are
categories.json                     optional: the scientific names, which the annotations hide
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

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
from discl_ray.data.root import guard, open_root
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
    data: dict[str, bytes] = {}
    for name in SPLITS:
        data[name] = read_required(root, name, LAYOUT, links=links)
    parsed = {name: _parsed(name, text) for name, text in data.items()}
    names = _categories(TRAIN, parsed[TRAIN])
    paths: list[str] = []
    keys: list[str] = []
    splits: list[str] = []
    for name, split in SPLITS.items():
        others = set(paths)
        categories = _images(root, name, parsed[name], names, others)
        count = len(categories)
        check_folders(root, name, list(categories), links=links)
        paths += categories
        keys += [str(category) for category in categories.values()]
        splits += [split] * count
    scientific_names = _scientific_names(root, links=links)
    for category, scientific in scientific_names.items():
        if category in names:
            names[category] = scientific
    hashes = [sha256(text) for text in data.values()]
    return Listing(
        table=table_of_files(sample_id=paths, path=paths, class_key=keys, split=splits),
        root=root,
        read=read_files,
        stamp=stamp_of(folders_of(root, paths), hashes),
        classes=[str(category) for category in sorted(names)],
        names={str(category): name for category, name in names.items()},
    )


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


def _images(
    root: Store, file: str, value: Any, categories: ById, others: set[str]
) -> dict[str, int]:
    """Path -> category id, in the order of the images; `others` are paths of other files."""
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
