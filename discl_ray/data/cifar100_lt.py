"""CIFAR-100-LT: torchvision's `cifar-100-python/{train,test,meta}`, made long-tailed.

The files are pickles, which are programs. They are read only if they are byte for byte the
published ones, and then by an unpickler that allows arrays, text and numbers and nothing else.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import pickle
import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core.ids import stable_id
from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.config import Cifar100LTConfig, LongTail
from discl_ray.data.file_lists import read_required
from discl_ray.data.listing import LISTING, Listing, set_column
from discl_ray.data.root import open_root
from discl_ray.data.splits import NONE, TRAIN, VAL, Codes, long_tail_sizes, order_of, split_names
from discl_ray.errors import DataError, ImageError

FOLDER = "cifar-100-python"
"""What the published archive unpacks to."""

CHECKSUMS = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
"""MD5 of the published files."""

Integers = NDArray[np.int64]
"""Labels, or numbers of rows."""

LAYOUT = f"{FOLDER}/ with train, test and meta, as cifar-100-python.tar.gz is unpacked"

_reconstruct = np.empty(0).__reduce__()[0]
"""numpy's own function for that, whose module depends on numpy's version."""

_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}
"""All that these pickles may name."""

Version = tuple[int, int]
"""Size and date of a file."""

Content = dict[str, Any]
"""What a file holds."""

_LOADED: dict[str, tuple[Version, Content]] = {}
"""What this process has read, by path."""


def cifar100_lt(config: Cifar100LTConfig, seed: int) -> Listing:
    """Train, val and test rows; labels are the fine ones.

    Class i (in the order of labels) keeps int(n_0 (1 / imbalance)^(i / 99)) training images. The
    seed draws which ones, so that a longer tail is a part of a shorter one. Up to `val_per_class`
    of those a class leaves out are val; the rest is not listed. Without a long tail all are train.

    Raises DataError if a file is missing or is not the published one.
    """
    root = open_root(config.root)
    links = config.allow_links_outside
    files: dict[str, Content] = {}
    for file in CHECKSUMS:
        files[file] = load(root, f"{FOLDER}/{file}", links=links)
    names: list[str] = files["meta"]["fine_label_names"]
    train = _labels(files["train"])
    test = _labels(files["test"])
    split = _splits(config, train, len(names), seed)
    listed = np.flatnonzero(split != NONE)
    splits = split_names(split[listed]).to_pylist()
    splits += ["test"] * len(test)
    everything = np.arange(len(test))
    parts = [_rows("train", listed, train[listed], names), _rows("test", everything, test, names)]
    table = pa.concat_tables(parts).combine_chunks()
    column = pa.array(splits, pa.string())
    return Listing(
        table=set_column(table, "split", column),
        root=root,
        read=read_cifar,
        stamp=stable_id(CHECKSUMS),
        in_files=False,
        classes=names,
        names={name: name.replace("_", " ") for name in names},
    )


def _labels(content: Content) -> Integers:
    """The fine labels of a file, in [0, 100), shape (N,); the coarse ones are not used."""
    return np.array(content["fine_labels"], np.int64)


def _ids(file: str, rows: Iterable[int]) -> list[str]:
    """sample_id of some rows of a file; draws depend on them, so they never change."""
    return [f"{file}/{row:05d}" for row in rows]


def _rows(file: str, rows: Integers, label: Integers, names: list[str]) -> pa.Table:
    """LISTING of some rows of a file, still without splits."""
    count = len(rows)
    path = f"{FOLDER}/{file}"
    blank = pa.nulls(count, pa.string())
    columns = {
        "sample_id": _ids(file, rows),
        "path": [path] * count,
        "row": rows,
        "class_key": [names[c] for c in label],
        "split": blank,
        "domain": blank,
        "group": blank,
    }
    return pa.table(columns, schema=LISTING)


def _splits(config: Cifar100LTConfig, label: Integers, classes: int, seed: int) -> Codes:
    """The split of each training image, NONE for what is not listed, shape (N,)."""
    if config.long_tail is None:
        return np.full(len(label), TRAIN, np.int32)
    return long_tailed(label, classes, config.long_tail, config.val_per_class, seed)


def long_tailed(
    label: Integers, classes: int, tail: LongTail, val_per_class: int, seed: int
) -> Codes:
    """The split of each training image under a long tail, shape (N,)."""
    largest = int(np.bincount(label).max())
    head = min(tail.head or largest, largest)
    sizes = long_tail_sizes(head, tail.imbalance, classes)
    ids = pa.array(_ids("train", range(len(label))), pa.string())
    order = order_of(ids, seed)
    split = np.full(len(label), NONE, np.int32)
    for c, size in enumerate(sizes):
        members = order[label[order] == c]
        kept = max(size, 1)
        end = kept + val_per_class
        split[members[:kept]] = TRAIN
        split[members[kept:end]] = VAL
    return split


def read_cifar(root: Store, rows: pa.Table) -> Iterator[bytes | ImageError]:
    """Each row's image as PNG, 32x32; a file is read again only if its size or date changes."""
    paths = rows["path"].to_pylist()
    numbers = rows["row"].to_pylist()
    for path, number in zip(paths, numbers, strict=True):
        try:
            content = load(root, path, links=True)  # links were checked when it was listed
        except (DataError, OSError) as error:
            yield ImageError("unreadable", str(error))
            continue
        # a row of 3072 bytes: all red, then all green, then all blue
        row = content["data"][number]
        planes = row.reshape(3, 32, 32)
        pixels = planes.transpose(1, 2, 0)
        image = np.ascontiguousarray(pixels)
        yield encode_image(image, "png")


def load(root: Store, path: str, *, links: bool) -> Content:
    """One of the three files. Raises DataError if it is missing or not the published one."""
    place = root.path(path)
    info = root.filesystem.get_file_info(place)
    size = info.size or 0
    date = info.mtime_ns or 0
    version = (size, date)
    if place in _LOADED:
        loaded, content = _LOADED[place]
        if loaded == version:
            return content
    data = read_required(root, path, LAYOUT, links=links)
    file = posixpath.basename(path)
    wanted = CHECKSUMS[file]
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != wanted:
        raise DataError(
            f"{path}: has MD5 {found}, the published file has {wanted}; "
            "unpack cifar-100-python.tar.gz again"
        )
    content = unpickled(path, data)
    _LOADED[place] = (version, content)
    return content


def unpickled(path: str, data: bytes) -> Any:
    """The content of a pickle of arrays, text and numbers.

    Raises DataError naming the first other thing it asks for.
    """
    return _Arrays(path, data).load()


class _Arrays(pickle.Unpickler):
    """Finds the names in `_GLOBALS` and no other."""

    def __init__(self, path: str, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle names. Raises DataError if it is none of `_GLOBALS`."""
        try:
            return _GLOBALS[module, name]
        except KeyError as error:
            asked = f"the pickle asks for {module}.{name}"
            raise DataError(f"{self._path}: {asked}; only arrays of numbers are read") from error
