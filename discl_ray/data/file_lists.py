"""Benchmarks that come as lists of image files: required files, their folders, and the listing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

import pyarrow as pa
import pyarrow.fs as pafs

from discl_ray.core.columns import (
    Column,
    any_true,
    both,
    choose,
    lengths,
    matches,
    negate,
    replace_matches,
    smaller,
    starts_with,
)
from discl_ray.core.storage import Store
from discl_ray.data.files import File, pick
from discl_ray.data.listing import LISTING
from discl_ray.data.paths import UNUSUAL, folder_column, guarded
from discl_ray.data.root import LONGEST, guard
from discl_ray.data.text_files import decode_text
from discl_ray.data.wording import shown
from discl_ray.errors import DataError


def read_required(root: Store, name: str, layout: str, *, links: bool) -> bytes:
    """A file that the data set cannot do without; `layout` says what the whole looks like.

    Raises DataError saying what was looked for and what there is instead.
    """
    try:
        path = guard(root, name, links=links)
        return root.read(path)
    except ValueError as error:
        raise DataError(f"'{shown(name)}' {error}") from error
    except FileNotFoundError:
        missing = f"there is no '{shown(name)}'"
        raise_missing(root, f"{layout}; {missing}", links=links)
    except OSError as error:
        raise DataError(f"{shown(name)}: cannot be read: {error}") from error


def read_text(root: Store, name: str, layout: str, *, links: bool) -> str:
    """The text of a required file. Raises DataError if it is missing or not UTF-8."""
    data = read_required(root, name, layout, links=links)
    return decode_published(name, data)


def decode_published(name: str, data: bytes) -> str:
    """The text of a file of a benchmark. Raises DataError naming the line if it is not UTF-8."""
    where = shown(name)
    return decode_text(where, data, "download the file again")


def raise_missing(root: Store, looked_for: str, *, links: bool) -> NoReturn:
    """Raises DataError saying what was looked for under the root and what there is instead."""

    def nothing(_path: str) -> bool:
        return False

    pick(root, nothing, looked_for, links=links)
    raise AssertionError("nothing was wanted")


Texts = Column | Sequence[str | None]
"""A column of text, or a list."""


def folders_of(root: Store, paths: Texts) -> list[File]:
    """The folders of some files, with the date of each; size -1 if there is no such folder."""
    every = folder_column(_column(paths)).unique()
    names = sorted(every.to_pylist())
    places = [root.path(name) for name in names]
    infos = root.filesystem.get_file_info(places)
    folders: list[File] = []
    for name, info in zip(names, infos, strict=True):
        size = 0 if info.type == pafs.FileType.Directory else -1
        date = info.mtime_ns or 0
        folders.append(File(name, size, date))
    return folders


def _column(texts: Texts) -> Column:
    """Text as a column."""
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        return texts
    return pa.array(texts, pa.string())


def accepted(root: Store, paths: Column) -> Column | None:
    """`guard` of every path, where links are allowed; None if one is refused."""

    def refuse(_row: int, _path: str, error: ValueError) -> NoReturn:
        raise error

    try:
        return guarded(root, _relative(root, paths), refuse)
    except ValueError:
        return None


def _relative(root: Store, paths: Column) -> Column:
    """Paths that begin with a local root without it, unless the rest of one is unusual.

    `guarded` would look at each absolute path by itself.
    """
    home = f"{root.base}/"
    if root.local is None or "\\" in home or not any_true(starts_with(paths, home)):
        return paths
    rest = replace_matches(paths, f"^{re.escape(home)}", "")
    usual = negate(matches(rest, UNUSUAL))
    short = smaller(lengths(paths), LONGEST + 1)
    return choose(both(usual, short), rest, paths)


def check_folders(root: Store, name: str, paths: Texts, *, links: bool) -> None:
    """Raises DataError if none of the folders of a list's images exists."""
    folders = folders_of(root, paths)
    if not folders or any(folder.size >= 0 for folder in folders):
        return
    example = folders[0].path
    count = len(folders)
    none = f"there is none of its {count} folders, such as '{example}'"
    raise_missing(root, f"the images of {name}; {none}", links=links)


def table_of_files(
    *,
    sample_id: Texts,
    path: Texts,
    class_key: Texts,
    split: Texts,
    domain: Texts | None = None,
    group: Texts | None = None,
) -> pa.Table:
    """LISTING by column, of images that are files of their own."""
    columns: Mapping[str, Texts | None] = {
        "sample_id": sample_id,
        "path": path,
        "class_key": class_key,
        "split": split,
        "domain": domain,
        "group": group,
    }
    arrays: list[Column] = []
    for field in LISTING:
        values = columns.get(field.name)
        if values is None:
            arrays.append(pa.nulls(len(path), field.type))
        else:
            arrays.append(_column(values))
    return pa.table(arrays, schema=LISTING)
