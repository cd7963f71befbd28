"""A manifest: a CSV, TSV or JSONL file with a row an image.

    path,label                  required; paths are relative to the root
    split,sample_id,domain,group  optional; an empty cell is the same as no column

Everything in it is text as it is written: label `0123` stays `0123`, in JSON as well. All that is wrong is told at once.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.data.config import ManifestConfig
from discl_ray.data.files import (
    SPLIT_WORDS,
    Problems,
    choose_columns,
    split_of,
    stamp_of,
    stat_files,
)
from discl_ray.data.listing import LISTING, Listing, read_files
from discl_ray.data.root import guard, open_root, same_name
from discl_ray.data.wording import shown
from discl_ray.errors import DataError

REQUIRED = ("path", "label")
OPTIONAL = ("split", "sample_id", "domain", "group")

Row = tuple[int, Mapping[str, str]]
"""A line's number and its cells by their column."""


def manifest(config: ManifestConfig, _seed: int) -> Listing:
    """The manifest's rows, in its order. A file it names that is not there is a row all the same; reading it says so.

    Raises DataError naming the lines: columns missing or twice, a path that is refused, no label, an unknown split, one
    sample_id or one path with two labels, a row of another length, a line that is no JSON; or if the file is not there,
    is not UTF-8, or holds no row.
    """
    root = open_root(config.root)
    name, data = _read(root, config)
    problems = Problems(name)
    text = _decoded(name, data)
    found, rows = (
        _jsonl(text, problems) if name.lower().endswith(".jsonl") else _csv(name, text, problems)
    )
    columns = choose_columns(
        config.columns, found, required=REQUIRED, optional=OPTIONAL, where=name
    )
    cells = _columns(root, rows, columns, problems)
    problems.check()
    if not cells["path"]:
        raise DataError(f"{name}: has no row")
    files = stat_files(root, [path for path in cells["path"] if path])
    cells["path"] = [file.path for file in files]
    listed = {column: pa.array(values, pa.string()) for column, values in cells.items()}
    listed |= {"class_key": listed.pop("label"), "row": pa.nulls(len(cells["path"]), pa.int64())}
    return Listing(
        table=pa.table({column: listed[column] for column in LISTING.names}, schema=LISTING),
        root=root,
        read=read_files,
        stamp=stamp_of(files, sha256(data)),
    )


def _read(root: Store, config: ManifestConfig) -> tuple[str, bytes]:
    where = f"data.file = '{shown(config.file)}'"
    try:
        name = guard(root, config.file, links=config.allow_links_outside)
        return name, root.read(name)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    except FileNotFoundError as error:
        folder = posixpath.dirname(config.file)
        others = [n for n in root.list(folder) if n.lower().endswith((".csv", ".tsv", ".jsonl"))]
        there = (
            f"there are {', '.join(map(shown, others[:6]))}"
            if others
            else "there is no *.csv, *.tsv or *.jsonl"
        )
        raise DataError(
            f"{where}: no such file in data.root = '{shown(config.root)}'; {there}"
        ) from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error}") from error


def _decoded(name: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = (
            "UTF-16"
            if data[:2] in (b"\xff\xfe", b"\xfe\xff")
            else f"byte 0x{data[error.start]:02x}"
        )
        raise DataError(f"{name}: line {line}: is not UTF-8 ({what}); save it as UTF-8") from error
    if not text.strip():
        raise DataError(f"{name}: is empty")
    return text


def _csv(name: str, text: str, problems: Problems) -> tuple[list[str], Iterator[Row]]:
    """Column names, and the rows."""
    delimiter = "\t" if name.lower().endswith(".tsv") else ","
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,
        skipinitialspace=delimiter == ",",
    )
    try:
        header = next(cells for cells in reader if any(cells))
    except (csv.Error, StopIteration) as error:
        raise DataError(f"{name}: line 1: {str(error) or 'there is no header'}") from error
    columns = [cell.strip() for cell in header]
    if len(columns) == 1 and (other := next((c for c in ";\t,|" if c in columns[0]), None)):
        needed = "tabs" if delimiter == "\t" else "commas"
        raise DataError(
            f"{name}: line 1: columns are divided by {other!r}; needed: {needed} (a *.csv has commas, a *.tsv tabs)"
        )
    return columns, _csv_rows(reader, columns, problems)


def _csv_rows(reader: Any, columns: list[str], problems: Problems) -> Iterator[Row]:
    line = reader.line_num + 1
    try:
        for cells in reader:
            first, line = line, reader.line_num + 1
            if not any(cells):
                continue
            if len(cells) == len(columns):
                yield first, dict(zip(columns, cells, strict=True))
            else:
                problems.add(
                    f"line {first}", f"has {len(cells)} fields, the header has {len(columns)}"
                )
    except csv.Error as error:
        problems.add(f"line {line}", f"{error}; is a quote not closed?")


def _jsonl(text: str, problems: Problems) -> tuple[list[str], Iterator[Row]]:
    """Column names, of all objects, and the rows."""
    rows: list[Row] = []
    for line, words in enumerate(text.split("\n"), 1):
        if not words.strip():
            continue
        try:
            value = json.loads(
                words,
                object_pairs_hook=_without_twice,
                parse_int=str,
                parse_float=str,
                parse_constant=str,
            )
        except json.JSONDecodeError as error:
            problems.add(
                f"line {line}",
                f"is no JSON: {error.msg} at character {error.colno}; one object a line is needed",
            )
        except (ValueError, RecursionError) as error:
            problems.add(f"line {line}", str(error))
        else:
            if isinstance(value, dict):
                rows.append((line, {key: cell for key, cell in value.items() if cell is not None}))
            else:
                problems.add(f"line {line}", "is no object; one object a line is needed")
    if not rows:
        problems.check()
    return list(dict.fromkeys(key for _, row in rows for key in row)), iter(rows)


def _without_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _columns(
    root: Store, rows: Iterator[Row], columns: Mapping[str, str], problems: Problems
) -> dict[str, list[str | None]]:
    """The rows that are right by column; what is wrong with the others goes to `problems`."""
    cells: dict[str, list[str | None]] = {name: [] for name in (*REQUIRED, *OPTIONAL)}
    ids: dict[str, int] = {}
    labels: dict[str, tuple[str, int]] = {}
    for line, row in rows:
        where = f"line {line}"
        values = {ours: row.get(theirs, "") for ours, theirs in columns.items()}
        if wrong := next((ours for ours, value in values.items() if not _is_text(value)), None):
            problems.add(
                where, f"{wrong} = {shown(ascii(values[wrong]))}: text or a number is needed"
            )
            continue
        label, split, given = values["label"], values.get("split", ""), values["path"]
        if rule := _broken_label(label):
            problems.add(where, f"label '{shown(label)}' {rule}")
        if split and split_of(split) is None:
            allowed = ", ".join(word for words in SPLIT_WORDS.values() for word in words)
            problems.add(where, f"split '{shown(split)}' is none of {allowed}")
        try:
            path = guard(root, given, links=True)
        except ValueError as error:
            problems.add(where, f"path '{shown(given)}' {error}")
            continue
        sample_id = values.get("sample_id") or path
        if ids.setdefault(sample_id, line) != line:
            problems.add(
                where, f"sample_id '{shown(sample_id)}' stands in line {ids[sample_id]} already"
            )
        other, first = labels.setdefault(path, (label, line))
        if same_name(other) != same_name(label):
            problems.add(
                where,
                f"'{shown(path)}' is '{shown(label)}' here and '{shown(other)}' in line {first}",
            )
        mended = {**values, "path": path, "sample_id": sample_id, "split": split_of(split)}
        for name, column in cells.items():
            column.append(mended.get(name) or None)
    return cells


def _is_text(value: Any) -> bool:
    """A JSON line may hold lists, truth values, and halves of characters, which are no text."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _broken_label(label: str) -> str | None:
    if not label.strip():
        return "is empty"
    return (
        "holds a control character"
        if any(unicodedata.category(c) == "Cc" for c in label.strip())
        else None
    )
