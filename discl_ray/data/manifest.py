"""A manifest: a CSV, TSV or JSONL file with a row an image.

    path,label                  required; paths are relative to the root
    split,sample_id,domain,group  optional; an empty cell is the same as no column

Every cell is text as it is written: label `0123` stays `0123`, in JSON as well. All problems are
reported at once.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from discl_ray.core.columns import Column, choose, equal, fill_null
from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.data.config import ManifestConfig
from discl_ray.data.file_lists import accepted, table_of_files
from discl_ray.data.files import split_of, stamp_of, stat_files
from discl_ray.data.listing import Listing, read_files, set_column
from discl_ray.data.manifest_rows import (
    COLUMNS,
    OBJECTS,
    OPTIONAL,
    broken_label,
    by_row,
    chosen_columns,
    csv_lines,
    is_jsonl,
    without_nulls,
)
from discl_ray.data.root import guard, open_root, same_name
from discl_ray.data.text_files import (
    Line,
    Problems,
    are_distinct,
    decode_text,
    distinct,
    gathered,
    translated,
)
from discl_ray.data.wording import shown
from discl_ray.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl")
"""Names of files that may be manifests."""

OTHERS = 6
"""Manifests that an error names where the one asked for is missing."""

Columns = dict[str, Column]
"""The manifest's cells by our columns, as they are written; empty where there is none."""


def manifest(config: ManifestConfig, _seed: int) -> Listing:
    """The manifest's rows, in its order; a missing image is a row, too, and reading reports it.

    Raises DataError naming the lines: missing or duplicated columns, a refused path, no label, an
    unknown split, a duplicated sample_id, a path with two labels, a row of another length, a line
    that is not JSON; or if the file is missing, not UTF-8 or empty.
    """
    root = open_root(config.root)
    name, data = _read(root, config)
    text = decode_text(name, data)
    if not text.strip():
        raise DataError(f"{name}: is empty")
    table = by_column(root, config, name, text)
    if table is None:
        table = by_row(root, config, name, text)
    files = stat_files(root, table["path"].to_pylist())
    # as the disk spells them, which may be another Unicode form
    spelt = pa.array([file.path for file in files], pa.string())
    return Listing(
        table=set_column(table, "path", spelt),
        root=root,
        read=read_files,
        stamp=stamp_of(files, sha256(data)),
    )


def by_column(root: Store, config: ManifestConfig, name: str, text: str) -> pa.Table | None:
    """LISTING of a manifest, its paths guarded; None if anything is wrong with a row.

    Raises DataError if there is no header, or a column is missing or duplicated.
    """
    columns = _columns(config, name, text)
    if columns is None or not _are_right(columns["label"], columns["split"]):
        return None
    label = columns["label"]
    path = accepted(root, columns["path"])
    if path is None or not len(path):
        return None
    given = columns["sample_id"]
    sample_id = choose(equal(given, ""), path, given)
    if not are_distinct(sample_id) or not _have_one_label(path, label):
        return None
    return table_of_files(
        sample_id=sample_id,
        path=path,
        class_key=label,
        split=translated(columns["split"], split_of),
        domain=translated(columns["domain"], _or_none),
        group=translated(columns["group"], _or_none),
    )


def _are_right(label: Column, split: Column) -> bool:
    """Whether every label and every word for a split can be used."""
    for text in distinct(label):
        if broken_label(text):
            return False
    return all(not word or split_of(word) for word in distinct(split))


def _have_one_label(path: Column, label: Column) -> bool:
    """Whether the rows of a path, wherever there are several, have the same label."""
    rows = pa.table({"path": path, "label": translated(label, same_name)})
    pairs = rows.group_by(["path", "label"]).aggregate([])
    return are_distinct(pairs["path"])


def _or_none(text: str) -> str | None:
    """A cell's text; None if it is empty."""
    return text or None


def _columns(config: ManifestConfig, name: str, text: str) -> Columns | None:
    """A manifest's cells, whose kind its suffix tells; None if a row is wrong."""
    read = _jsonl_columns if is_jsonl(name) else _csv_columns
    columns = read(config, name, text)
    if columns is None:
        return None
    for ours in OPTIONAL:
        if ours not in columns:
            columns[ours] = pa.repeat("", len(columns["path"]))
    return columns


def _csv_columns(config: ManifestConfig, name: str, text: str) -> Columns | None:
    """The cells of a CSV or TSV file; None if a row is wrong."""
    problems = Problems(name)
    header, lines = csv_lines(name, text, problems)
    chosen = chosen_columns(config, header, name)
    places = [header.index(theirs) for theirs in chosen.values()]
    columns = gathered(lines, len(header), places)
    if columns is None or problems:
        return None
    return dict(zip(chosen, columns, strict=True))


def _jsonl_columns(config: ManifestConfig, name: str, text: str) -> Columns | None:
    """The cells of a file with an object a line; None if a line is wrong."""
    theirs = [config.columns.get(ours, ours) for ours in COLUMNS]
    found: dict[str, Any] = {}
    lines = _jsonl_lines(text, theirs, found)
    try:
        columns = gathered(lines, len(theirs), range(len(theirs)))
    except (ValueError, TypeError, RecursionError):  # no object, or no text in a cell
        return None
    chosen_columns(config, list(found), name)  # a column that it leaves out has no cell
    if columns is None:
        return None
    texts = [fill_null(column, "") for column in columns]
    return dict(zip(COLUMNS, texts, strict=True))


def _jsonl_lines(text: str, names: Sequence[str], found: dict[str, Any]) -> Iterator[Line]:
    """The named cells of each object; the names of all cells are added to `found`, in their order.

    Raises ValueError or RecursionError if a line is not an object.
    """
    for line, words in enumerate(text.split("\n"), start=1):
        if not words.strip():
            continue
        value = OBJECTS.decode(words)
        if not isinstance(value, dict):
            raise ValueError("is not an object")
        if not value.keys() <= found.keys():
            found.update(without_nulls(value))
        cells: list[Any] = [value.get(name) for name in names]
        yield line, cells


def _read(root: Store, config: ManifestConfig) -> tuple[str, bytes]:
    """The manifest's name under the root, and its content."""
    file = shown(config.file)
    where = f"data.file = '{file}'"
    try:
        name = guard(root, config.file, links=config.allow_links_outside)
        data = root.read(name)
        return name, data
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    except FileNotFoundError as error:
        place = f"data.root = '{shown(config.root)}'"
        others = _others(root, config.file)
        raise DataError(f"{where}: no such file in {place}; {others}") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error}") from error


def _others(root: Store, file: str) -> str:
    """Which manifests there are where one is missing."""
    folder = posixpath.dirname(file)
    others: list[str] = []
    for name in root.list(folder):
        if name.lower().endswith(SUFFIXES):
            others.append(name)
    if not others:
        return "there is no *.csv, *.tsv or *.jsonl"
    some = others[:OTHERS]
    names = ", ".join(shown(name) for name in some)
    return f"there are {names}"
