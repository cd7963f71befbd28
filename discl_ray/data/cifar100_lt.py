"""CIFAR-100-LT: torchvision's `cifar-100-python/{train,test,meta}`, made long-tailed.

The files are pickles, which are programs. They are read only if they are byte for byte the
published ones, and then by an unpickler that allows arrays, text and numbers and nothing else.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import pickle
from collections.abc import Iterator
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
from discl_ray.data.splits import long_tail_sizes, order_of
from discl_ray.errors import DataError, ImageError

FOLDER = "cifar-100-python"

CHECKSUMS = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
"""MD5 of the published files."""

Integers = NDArray[np.int64]

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
    files = {name: load(root, f"{FOLDER}/{name}", links=links) for name in CHECKSUMS}
    names: list[str] = files["meta"]["fine_label_names"]
    train = np.array(files["train"]["fine_labels"], np.int64)
    test = np.array(files["test"]["fine_labels"], np.int64)
    split = np.full(len(train), "train", object)
    if config.long_tail is not None:
        split = _long_tailed(train, len(names), config.long_tail, config.val_per_class, seed)
    listed = np.flatnonzero(split != "")
    splits = split[listed].tolist()
    splits += ["test"] * len(test)
    table = pa.concat_tables(
        [
            _rows("train", listed, train[listed], names),
            _rows("test", np.arange(len(test)), test, names),
        ]
    ).combine_chunks()
    return Listing(
        table=set_column(table, "split", pa.array(splits, pa.string())),
        root=root,
        read=read_cifar,
        stamp=stable_id(CHECKSUMS),
        in_files=False,
        classes=names,
        names={name: name.replace("_", " ") for name in names},
    )


def _rows(file: str, rows: Integers, label: Integers, names: list[str]) -> pa.Table:
    """LISTING of some rows of a file, still without splits."""
    columns = {
        "sample_id": [f"{file}/{row:05d}" for row in rows],
        "path": [f"{FOLDER}/{file}"] * len(rows),
        "row": rows,
        "class_key": [names[c] for c in label],
    }
    blank = pa.nulls(len(rows), pa.string())
    columns |= dict.fromkeys(("split", "domain", "group"), blank)
    return pa.table(columns, schema=LISTING)


def _long_tailed(
    label: Integers, classes: int, tail: LongTail, val_per_class: int, seed: int
) -> NDArray[np.object_]:
    """train, val or an empty word for each training image, shape (N,)."""
    largest = int(np.bincount(label).max())
    head = min(tail.head or largest, largest)
    sizes = long_tail_sizes(head, tail.imbalance, classes)
    ids = [f"train/{row:05d}" for row in range(len(label))]
    order = order_of(ids, seed)
    split = np.full(len(label), "", object)
    for c, size in enumerate(sizes):
        members = order[label[order] == c]
        kept = max(size, 1)
        split[members[:kept]] = "train"
        split[members[kept : kept + val_per_class]] = "val"
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
        planes = content["data"][number].reshape(3, 32, 32)
        pixels = np.ascontiguousarray(planes.transpose(1, 2, 0))
        yield encode_image(pixels, "png")


def load(root: Store, path: str, *, links: bool) -> Content:
    """One of the three files. Raises DataError if it is missing or not the published one."""
    info = root.filesystem.get_file_info(root.path(path))
    version = (info.size or 0, info.mtime_ns or 0)
    loaded, content = _LOADED.get(root.path(path), (None, {}))
    if loaded == version:
        return content
    data = read_required(root, path, LAYOUT, links=links)
    wanted = CHECKSUMS[path.rsplit("/", 1)[-1]]
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != wanted:
        raise DataError(
            f"{path}: has MD5 {found}, the published file has {wanted}; "
            "unpack cifar-100-python.tar.gz again"
        )
    content = unpickled(path, data)
    _LOADED[root.path(path)] = (version, content)
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
