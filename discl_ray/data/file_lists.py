"""Benchmarks that come as lists of image files: required files, their folders, and the listing."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from typing import NoReturn

import pyarrow as pa
import pyarrow.fs as pafs

from discl_ray.core.storage import Store
from discl_ray.data.files import File, pick
from discl_ray.data.listing import LISTING
from discl_ray.data.root import guard
from discl_ray.data.wording import shown
from discl_ray.errors import DataError


def read_required(root: Store, name: str, layout: str, *, links: bool) -> bytes:
    """A file without which a data set is none. Raises DataError saying what was looked for and what is there."""
    try:
        return root.read(guard(root, name, links=links))
    except ValueError as error:
        raise DataError(f"'{shown(name)}' {error}") from error
    except FileNotFoundError:
        raise_missing(root, f"{layout}; there is no '{shown(name)}'", links=links)
    except OSError as error:
        raise DataError(f"{shown(name)}: cannot be read: {error}") from error


def raise_missing(root: Store, looked_for: str, *, links: bool) -> NoReturn:
    """Raises DataError saying what was looked for under the root and what is there instead."""
    pick(root, lambda path: False, looked_for, links=links)
    raise AssertionError("nothing was wanted")


def decoded(name: str, data: bytes) -> str:
    """A file's text. Raises DataError naming the line if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{shown(name)}: line {line}: is not UTF-8; get the file again") from error


def folders_of(root: Store, paths: Iterable[str]) -> list[File]:
    """The folders files lie in, with the date of each; its size is -1 if there is no such folder."""
    names = sorted({posixpath.dirname(path) for path in paths})
    infos = root.filesystem.get_file_info([root.path(name) for name in names])
    return [
        File(name, 0 if info.type == pafs.FileType.Directory else -1, info.mtime_ns or 0)
        for name, info in zip(names, infos, strict=True)
    ]


def check_folders(root: Store, name: str, paths: Sequence[str], *, links: bool) -> None:
    """Raises DataError if there is none of the folders in which a list says its images lie."""
    folders = folders_of(root, paths)
    if folders and all(folder.size < 0 for folder in folders):
        raise_missing(
            root,
            f"the images of {name}; there is none of its {len(folders)} folders, such as '{folders[0].path}'",
            links=links,
        )


def table_of_files(
    *,
    sample_id: Sequence[str],
    path: Sequence[str],
    class_key: Sequence[str],
    split: Sequence[str],
    domain: Sequence[str] | None = None,
    group: Sequence[str] | None = None,
) -> pa.Table:
    """LISTING by column, of images that are files of their own."""
    columns = {
        "sample_id": sample_id,
        "path": path,
        "class_key": class_key,
        "split": split,
        "domain": domain,
        "group": group,
        "row": None,
    }
    blank = [None] * len(path)
    arrays = [
        pa.array(blank if columns[f.name] is None else columns[f.name], f.type) for f in LISTING
    ]
    return pa.table(arrays, schema=LISTING)
