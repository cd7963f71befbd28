"""Tables with a row an image: what Parquet and other columnar formats share.

Listing reads every column but the images. Labels are text or whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.types as pat

from discl_ray.core.columns import (
    Column,
    Mask,
    all_true,
    both,
    duplicates,
    equal,
    fill_null,
    is_null,
    joined,
    negate,
    stripped,
    total,
)
from discl_ray.core.storage import Store
from discl_ray.data.column_names import choose_columns
from discl_ray.data.files import ALL_SPLIT_WORDS, File, split_of, stamp_of, stat_files
from discl_ray.data.image_cells import (
    BROKEN,
    Cell,
    Kind,
    extension_of,
    image_kind,
    is_text,
    value_type,
)
from discl_ray.data.listing import LISTING, Listing, read_files, set_column
from discl_ray.data.paths import guarded
from discl_ray.data.text_files import Problems
from discl_ray.data.wording import counted, shown
from discl_ray.errors import DataError

REQUIRED = ("image", "label")
"""Columns that a table must have."""

OPTIONAL = ("split", "sample_id", "domain", "group")
"""Columns that it may have."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file with a row an image."""

    path: str
    """Relative to the root."""
    schema: pa.Schema
    """Of all columns, those of images too."""
    split: str | None
    """Of all rows, where no column tells it."""
    read: Callable[[list[str]], pa.Table]
    """Some of the columns, of all rows."""


class _Form(NamedTuple):
    """What all files of a data set have in common."""

    kind: Kind
    """How they hold images."""
    numbered: bool
    """Labels are numbers, not text."""
    image: str
    """Name of the image column."""


def unreadable(path: str, what: str, error: Exception) -> DataError:
    """The error of a file that is broken as a whole."""
    where = shown(path)
    found = shown(str(error))
    broken = f"cannot be read as {what}: {found}"
    return DataError(f"{where}: {broken}; remove it or download it again")


def list_sources(
    root: Store,
    sources: Iterable[Source],
    given: Mapping[str, str],
    *,
    optional: Sequence[str],
    files: Sequence[File],
    read: Callable[..., Iterator[Cell]],
    links: bool,
    names: Sequence[str] | None = None,
    remedy: str = "data.columns",
) -> Listing:
    """A listing of files with a row an image.

    `given` names columns that are called differently in the files, by the keys `remedy` of the
    configuration; `optional` are those that may be missing; `names` are the classes of labels 0, 1,
    … A split none of whose rows has a label (null, or -1 where there are names) is left out.
    """
    tables: list[pa.Table] = []
    forms: dict[_Form, str] = {}
    for source in sources:
        columns = choose_columns(
            given,
            source.schema.names,
            required=REQUIRED,
            optional=optional,
            where=shown(source.path),
            remedy=remedy,
        )
        form = _form(source, columns)
        forms.setdefault(form, source.path)
        _check_same(forms)
        tables.append(_list_rows(root, source, columns, form.kind, names))
    (form,) = forms
    table = pa.concat_tables(tables).combine_chunks()
    paths = [file.path for file in files]
    table = _labelled(table, paths)
    _check_unique(table["sample_id"])
    classes = _classes(table, form, names)
    if form.kind == "path":
        return _listing_of_paths(root, table, files, classes)
    return Listing(
        table=table,
        root=root,
        read=partial(read, column=form.image, links=links),
        stamp=stamp_of(files),
        in_files=False,
        classes=classes,
    )


def _classes(table: pa.Table, form: _Form, names: Sequence[str] | None) -> Sequence[str] | None:
    """Class keys in the order of labels; None for texts, which are sorted."""
    if names or not form.numbered:
        return names
    keys = table["class_key"].unique()
    return sorted(keys.to_pylist(), key=int)  # as text, 10 would come before 2


def _listing_of_paths(
    root: Store, table: pa.Table, files: Sequence[File], classes: Sequence[str] | None
) -> Listing:
    """A listing of images that are files of their own; `files` are those of the table."""
    paths = table["path"].to_pylist()
    images = stat_files(root, paths)
    spelt = [image.path for image in images]
    column = pa.array(spelt, pa.string())
    return Listing(
        table=set_column(table, "path", column),
        root=root,
        read=read_files,
        stamp=stamp_of([*files, *images]),
        classes=classes,
    )


def _form(source: Source, columns: Mapping[str, str]) -> _Form:
    """How a file holds images and labels. Raises DataError if they cannot be used."""
    for theirs in columns.values():
        _check_plain(source.path, source.schema.field(theirs))
    name = columns["image"]
    dtype = source.schema.field(name).type
    kind = image_kind(dtype)
    if kind is None:
        where = shown(source.path)
        found = shown(str(dtype))
        column = f"image column '{shown(name)}' is of type {found}"
        raise DataError(
            f"{where}: {column}; "
            "needed: encoded images (binary), {bytes, path}, or paths (string)"
        )
    label = source.schema.field(columns["label"])
    return _Form(kind=kind, numbered=_is_number(label.type), image=name)


def _check_plain(file: str, field: pa.Field) -> None:
    """Raises DataError if a column is of an extension type."""
    name = extension_of(field)
    if name is None:
        return
    where = shown(file)
    column = f"column '{shown(field.name)}'"
    kind = f"the extension type {shown(name)}"
    raise DataError(
        f"{where}: {column} is of {kind}, "
        "which is not loaded: such columns may hold pickled objects. "
        "Write encoded images (PNG, JPEG) as binary, labels as text or whole numbers"
    )


def _is_number(dtype: pa.DataType) -> bool:
    """Whether a column holds whole numbers."""
    return pat.is_integer(value_type(dtype))


def _check_same(forms: Mapping[_Form, str]) -> None:
    """Raises DataError if there is more than one form."""
    if len(forms) > 1:
        first, other = forms.values()
        raise DataError(
            f"{shown(first)} and {shown(other)} have images or labels of different types; "
            "make them the same"
        )


def _list_rows(
    root: Store, source: Source, columns: Mapping[str, str], kind: Kind, names: Sequence[str] | None
) -> pa.Table:
    """LISTING of a file."""
    where = shown(source.path)
    found = _read(source, columns, kind)
    label = found.pop("label")
    path = found.pop("image", None)
    texts: dict[str, pa.Array] = {}
    for ours, column in found.items():
        texts[ours] = _texts(where, ours, column)
    count = len(label)
    numbers = pa.array(range(count), pa.int64())
    ids = texts.get("sample_id")
    if ids is None:
        ids = _numbered_ids(source.path, numbers)
    elif ids.null_count:
        missing = _first(ids.is_null())
        name = shown(columns["sample_id"])
        raise DataError(f"{where}: row {missing} has no '{name}'")
    split = pa.repeat(pa.scalar(source.split, pa.string()), count)
    if "split" in texts:
        split = _splits(where, texts["split"])
    blank = pa.nulls(count, pa.string())
    listed = {
        "sample_id": ids,
        "path": pa.repeat(source.path, count),
        "row": numbers,
        "class_key": _class_keys(where, label, names),
        "split": split,
        "domain": texts.get("domain", blank),
        "group": texts.get("group", blank),
    }
    if kind == "path":
        given = _texts(where, "image", path)
        listed["path"] = _guarded(root, where, given)
        listed["row"] = pa.nulls(count, pa.int64())
    return pa.table(listed, schema=LISTING)


def _read(source: Source, columns: Mapping[str, str], kind: Kind) -> dict[str, pa.Array]:
    """A file's columns by our names, without images unless they are paths."""
    chosen = dict(columns)
    if kind != "path":
        del chosen["image"]
    distinct = list(dict.fromkeys(chosen.values()))
    try:
        table = source.read(distinct)
    except BROKEN as error:
        raise unreadable(source.path, "a table", error) from error
    return {ours: table[theirs].combine_chunks() for ours, theirs in chosen.items()}


def _numbered_ids(path: str, numbers: pa.Array) -> Column:
    """`a.parquet#0`, `a.parquet#1`, …"""
    return joined([path, numbers.cast(pa.string())], "#")


def _first(mask: Mask) -> int:
    """The row number of the first true value; -1 if there is none."""
    return mask.index(True).as_py()


def _texts(where: str, name: str, column: Any) -> pa.Array:
    """A column of text, or of whole numbers as text."""
    if pat.is_dictionary(column.type):
        column = column.dictionary_decode()
    dtype = column.type
    ours = f"the column for {name}"
    if not (is_text(dtype) or pat.is_integer(dtype) or pat.is_null(dtype)):
        found = shown(str(dtype))
        raise DataError(f"{where}: {ours} is of type {found}; needed: text or whole numbers")
    try:
        texts = column.cast(pa.string())
        texts.validate(full=True)  # Parquet's text is not checked when it is read
    except pa.ArrowException as error:
        raise DataError(f"{where}: {ours} holds text that is not UTF-8") from error
    return texts


def _class_keys(where: str, column: pa.Array, names: Sequence[str] | None) -> pa.Array:
    """Labels as class keys; null where there is none."""
    texts = _texts(where, "label", column)
    if names is not None and _is_number(column.type):
        return _named_labels(where, texts, names)
    empty = equal(stripped(texts), "")
    row = _first(empty)
    if row >= 0:
        label = shown(texts[row].as_py())
        raise DataError(f"{where}: row {row}: label '{label}' is empty")
    return texts


def _named_labels(where: str, texts: pa.Array, names: Sequence[str]) -> pa.Array:
    """The class names of numbers; null for -1, as `datasets` writes rows without a label."""
    name_of: dict[str | None, str | None] = {None: None, "-1": None}
    for label, name in enumerate(names):
        name_of[str(label)] = name
    for key in texts.unique().to_pylist():
        if key not in name_of:
            last = len(names) - 1
            known = f"the {len(names)} names are of labels 0 to {last}"
            raise DataError(f"{where}: label {key} has no name; {known}")
    keys = [name_of[key] for key in texts.to_pylist()]
    return pa.array(keys, pa.string())


def _splits(where: str, words: pa.Array) -> pa.Array:
    """The splits of a column's words; null where it is empty."""
    splits: dict[str | None, str | None] = {}
    for word in words.unique().to_pylist():
        splits[word] = split_of(word) if word else None
        if word and splits[word] is None:
            allowed = ", ".join(ALL_SPLIT_WORDS)
            raise DataError(f"{where}: split '{shown(word)}' is none of {allowed}")
    found = [splits[word] for word in words.to_pylist()]
    return pa.array(found, pa.string())


def _guarded(root: Store, file: str, given: pa.Array) -> Column:
    """Paths under the root. Raises DataError naming the rows of those that are refused."""
    problems = Problems(file)

    def refuse(row: int, path: str, error: ValueError) -> None:
        problems.add(f"row {row}", f"path '{shown(path)}' {error}")

    paths = guarded(root, given, refuse)
    problems.check()
    return paths


def _labelled(table: pa.Table, files: Sequence[str]) -> pa.Table:
    """A listing without splits that have no labels at all, such as published test splits."""
    where = shown(", ".join(files))
    if not table.num_rows:
        number = counted(len(files), "file")
        raise DataError(f"{where}: no row in {number}")
    blank = table["class_key"].is_null()
    splits = table["split"].unique()
    for split in splits.to_pylist():
        inside = _equal(table["split"], split)
        lacking = both(inside, blank)
        row = _first(lacking)
        some_have = total(lacking) < total(inside)
        if row >= 0 and some_have:
            cell = table["sample_id"][row]
            sample_id = shown(cell.as_py())
            raise DataError(f"'{sample_id}' has no label, but others of its split have; remove it")
    if all_true(blank):
        raise DataError(f"{where}: no row has a label")
    return table.filter(negate(blank)).combine_chunks()


def _equal(column: Column, value: str | None) -> Mask:
    """Which cells hold a value, where null is one as well."""
    if value is None:
        return is_null(column)
    return fill_null(equal(column, value), False)


def _check_unique(ids: pa.ChunkedArray) -> None:
    """Raises DataError naming a sample_id that is duplicated."""
    repeated = duplicates(ids)
    if len(repeated):
        first = shown(repeated[0].as_py())
        raise DataError(f"sample_id '{first}' is duplicated; sample_id must be unique")
