"""iWildCam as WILDS distributes it (v2.0): photos of camera traps, some of which are never trained on.

metadata.csv      a row an image; used are split, filename, y, location_remapped
categories.csv    y and name: what the classes are called, scientifically; `empty` is one of them
train/            the images of all splits

split in metadata.csv      train     id_val   val    id_test   test
split and domain here      train id  val id   val ood  test id  test ood
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence

from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.data.config import IWildCamConfig
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

SPLITS = {
    "train": ("train", "id"),
    "id_val": ("val", "id"),
    "val": ("val", "ood"),
    "id_test": ("test", "id"),
    "test": ("test", "ood"),
}
"""The data set's word -> split and domain."""

LAYOUT = "WILDS' iwildcam_v2.0: metadata.csv, categories.csv and train/"

_LABEL = re.compile(r"[0-9]{1,6}")

Row = tuple[str, dict[str, str]]
"""Where it stands, and its cells by their column."""


def iwildcam(config: IWildCamConfig, _seed: int) -> Listing:
    """Every row of metadata.csv. A class's key is its scientific name (which `data.names` may translate), its label is `y`.

    There are as many classes as the largest `y` says, images or not. Images of one camera are a group. The stamp covers the tables
    and the folder's date, not each of two hundred thousand files: one that is replaced in place goes unnoticed.

    Raises DataError naming file, line and rule: a column that is missing or there twice, a row of another length, an unknown
    split, a `y` that is no label or has no name, a file that stands twice, a refused path; or if a file or the folder is missing.
    """
    root = open_root(config.root)
    links = config.allow_links_outside
    data = {
        name: read_required(root, name, LAYOUT, links=links)
        for name in ("metadata.csv", "categories.csv")
    }
    rows = list(_metadata(root, decoded("metadata.csv", data["metadata.csv"])))
    classes = _classes(
        decoded("categories.csv", data["categories.csv"]), [y for _, y, _, _ in rows]
    )
    paths = [path for path, _, _, _ in rows]
    check_folders(root, "metadata.csv", paths, links=links)
    table = table_of_files(
        sample_id=paths,
        path=paths,
        class_key=[classes[y] for _, y, _, _ in rows],
        split=[SPLITS[word][0] for _, _, word, _ in rows],
        domain=[SPLITS[word][1] for _, _, word, _ in rows],
        group=[location for _, _, _, location in rows],
    )
    return Listing(
        table=table,
        root=root,
        read=read_files,
        stamp=stamp_of(folders_of(root, paths), [sha256(text) for text in data.values()]),
        classes=classes,
    )


def _metadata(root: Store, text: str) -> Iterator[tuple[str, int, str, str]]:
    """(path, y, the data set's word for the split, location) of each row."""
    problems = Problems("metadata.csv")
    seen: dict[str, str] = {}
    for where, row in _table(
        "metadata.csv", text, ("split", "filename", "y", "location_remapped"), problems
    ):
        if row["split"] not in SPLITS:
            problems.add(where, f"split '{shown(row['split'])}' is none of {', '.join(SPLITS)}")
        if not _LABEL.fullmatch(row["y"]):
            problems.add(where, f"y = '{shown(row['y'])}' is no label; labels are 0, 1, 2, …")
            continue
        if not row["location_remapped"].strip():
            problems.add(where, "location_remapped is empty")
        try:
            path = guard(root, f"train/{row['filename']}", links=True)
        except ValueError as error:
            problems.add(where, f"filename '{shown(row['filename'])}' {error}")
            continue
        if seen.setdefault(path, where) != where:
            problems.add(where, f"'{shown(row['filename'])}' stands in {seen[path]} already")
        yield path, int(row["y"]), row["split"], row["location_remapped"]
    problems.check()
    if not seen:
        raise DataError("metadata.csv: has no row")


def _classes(text: str, labels: Sequence[int]) -> list[str]:
    """Scientific names by label. Rows of categories that no image can have (WILDS numbers them 99999) are left out."""
    problems = Problems("categories.csv")
    count = max(labels) + 1
    names: dict[int, str] = {}
    lines: dict[str, str] = {}
    for where, row in _table("categories.csv", text, ("y", "name"), problems):
        name = row["name"].strip()
        if not _LABEL.fullmatch(row["y"]):
            problems.add(where, f"y = '{shown(row['y'])}' is no label; labels are 0, 1, 2, …")
        elif int(row["y"]) >= count:
            continue
        elif not name:
            problems.add(where, "name is empty")
        elif int(row["y"]) in names:
            problems.add(where, f"y = {row['y']} is '{shown(names[int(row['y'])])}' already")
        elif lines.setdefault(name, where) != where:
            problems.add(
                where, f"'{shown(name)}' is the name of another y in {lines[name]} already"
            )
        else:
            names[int(row["y"])] = name
    problems.check()
    if unknown := sorted(set(labels) - set(names)):
        some = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise DataError(f"categories.csv: has no name for y = {some}, which metadata.csv has")
    if len(names) < count:
        lacking = next(y for y in range(count) if y not in names)
        raise DataError(
            f"categories.csv: has no name for y = {lacking}; labels are 0 to {count - 1} without a gap"
        )
    return [names[y] for y in range(count)]


def _table(file: str, text: str, columns: Sequence[str], problems: Problems) -> Iterator[Row]:
    """The rows of a CSV file by those columns that are used."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        header = next(reader, [])
        at = _positions(file, header, columns)
        line = reader.line_num + 1
        for cells in reader:
            where, line = f"line {line}", reader.line_num + 1
            if len(cells) == len(header):
                yield where, {name: cells[i] for name, i in at.items()}
            elif cells:
                problems.add(where, f"has {len(cells)} fields, the header has {len(header)}")
    except csv.Error as error:
        problems.add(f"line {line}", f"{error}; is a quote not closed?")


def _positions(file: str, header: Sequence[str], columns: Sequence[str]) -> Mapping[str, int]:
    for name in columns:
        if (count := header.count(name)) != 1:
            found = ", ".join(shown(column, 40) for column in header[:30]) or "none"
            many = f"{count} columns are called" if count else "no column"
            raise DataError(f"{file}: line 1: {many} '{name}'; its columns are {found}")
    return {name: header.index(name) for name in columns}
