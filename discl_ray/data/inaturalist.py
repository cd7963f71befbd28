"""iNaturalist 2018: annotations as COCO has them. The val images are the test split, as is usual; val is drawn from train later.

train2018.json, val2018.json        images (id, file_name), annotations (image_id, category_id), categories (id, name)
train_val2018/<group>/<category>/   the images, where the annotations say they are
categories.json                     optional: the scientific names, which the annotations themselves hide
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
    decoded,
    folders_of,
    read_required,
    table_of_files,
)
from discl_ray.data.files import Problems, stamp_of
from discl_ray.data.listing import Listing, read_files
from discl_ray.data.root import guard, open_root
from discl_ray.data.wording import shown
from discl_ray.errors import DataError

SPLITS = {"train2018.json": "train", "val2018.json": "test"}

NAMES = "categories.json"

LAYOUT = "train2018.json, val2018.json and train_val2018/"

WORDS = {int: "a whole number", str: "text"}


def inaturalist(config: INaturalistConfig, _seed: int) -> Listing:
    """Every annotated image, in the order of the files. A class's key is its category id, and labels are in the order of these ids;
    a category without an image is a class as well.

    The stamp covers the annotations and the folders of the images, not each of half a million files: one that is replaced in
    place, without its folder's date, goes unnoticed.

    Raises DataError naming file, entry and rule: a field that is missing or of another kind, an id that stands twice, an image
    without an annotation or with two that differ, an annotation without an image or category, a refused path; or if a file or
    all folders of one are missing.
    """
    root = open_root(config.root)
    links = config.allow_links_outside
    data = {name: read_required(root, name, LAYOUT, links=links) for name in SPLITS}
    given = read_required(root, NAMES, LAYOUT, links=links) if root.exists(NAMES) else b""
    parsed = {name: _parsed(name, text) for name, text in data.items()}
    names = _categories("train2018.json", parsed["train2018.json"])
    paths: list[str] = []
    keys: list[str] = []
    splits: list[str] = []
    for name, split in SPLITS.items():
        found = _images(root, name, parsed[name], names, set(paths))
        check_folders(root, name, list(found), links=links)
        paths += found
        keys += [str(category) for category in found.values()]
        splits += [split] * len(found)
    if given:
        names |= {
            id_: name
            for id_, name in _categories(NAMES, _parsed(NAMES, given)).items()
            if id_ in names
        }
    return Listing(
        table=table_of_files(sample_id=paths, path=paths, class_key=keys, split=splits),
        root=root,
        read=read_files,
        stamp=stamp_of(folders_of(root, paths), [sha256(text) for text in data.values()]),
        classes=[str(id_) for id_ in sorted(names)],
        names={str(id_): name for id_, name in names.items()},
    )


def _parsed(name: str, data: bytes) -> Any:
    try:
        return json.loads(decoded(name, data))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}: line {error.lineno}, character {error.colno}: is no JSON: {error.msg}"
        ) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # a number of thousands of digits, brackets without end
        raise DataError(f"{name}: cannot be read as JSON: {error}") from error


def _entries(
    value: Any, part: str, fields: Mapping[str, type], problems: Problems
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Where each entry of a list stands, and its fields; what lacks one goes to `problems`."""
    entries = value.get(part) if isinstance(value, dict) else None
    if not isinstance(entries, list):
        problems.add(part, "a list is needed")
        return
    for number, entry in enumerate(entries):
        where = f"{part}[{number}]"
        if not isinstance(entry, dict):
            problems.add(where, "an object is needed")
        elif wrong := next(
            (field for field, kind in fields.items() if type(entry.get(field)) is not kind), None
        ):
            given = f"is {shown(json.dumps(entry[wrong]), 40)}" if wrong in entry else "is missing"
            problems.add(f"{where}.{wrong}", f"{given}; {WORDS[fields[wrong]]} is needed")
        else:
            yield where, tuple(entry[field] for field in fields)


def _categories(file: str, value: Any) -> dict[int, str]:
    """Category id -> name, of the list `categories` or of a file that is nothing but that list."""
    problems = Problems(file)
    found: dict[int, str] = {}
    value = {"categories": value} if isinstance(value, list) else value
    for where, (id_, name) in _entries(value, "categories", {"id": int, "name": str}, problems):
        if id_ in found:
            problems.add(where, f"id {id_} stands twice")
        found[id_] = name.strip()
    problems.check()
    return found


def _images(
    root: Store, file: str, value: Any, categories: Mapping[int, str], others: set[str]
) -> dict[str, int]:
    """Path -> category id, in the order of the images."""
    problems = Problems(file)
    images: dict[int, tuple[str, str]] = {}
    for where, (id_, name) in _entries(value, "images", {"id": int, "file_name": str}, problems):
        try:
            path = guard(root, name, links=True)
        except ValueError as error:
            problems.add(f"{where}.file_name", f"'{shown(name)}' {error}")
            continue
        if id_ in images:
            problems.add(where, f"id {id_} stands in {images[id_][0]} already")
        elif path in others:
            problems.add(where, f"'{shown(path)}' stands twice")
        images[id_] = (where, path)
        others.add(path)
    problems.check()
    labels: dict[int, tuple[str, int]] = {}
    for where, (id_, category) in _entries(
        value, "annotations", {"image_id": int, "category_id": int}, problems
    ):
        if id_ not in images:
            problems.add(where, f"there is no image with id {id_}")
        elif category not in categories:
            problems.add(where, f"there is no category with id {category}")
        elif labels.setdefault(id_, (where, category))[1] != category:
            problems.add(
                where,
                f"image {id_} is category {category} here and {labels[id_][1]} in {labels[id_][0]}",
            )
    for id_, (where, _) in images.items():
        if id_ not in labels:
            problems.add(where, f"image {id_} has no annotation")
    problems.check()
    return {path: labels[id_][1] for id_, (_, path) in images.items()}
