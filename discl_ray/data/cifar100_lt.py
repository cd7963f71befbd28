"""CIFAR-100-LT: torchvision's `cifar-100-python/{train,test,meta}`, made long-tailed by the standard exponential profile.

The files are pickles, which are programs. They are read only if they are byte for byte the published ones, and then by an unpickler
that knows arrays, text and numbers and nothing else.
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
from discl_ray.data.listing import LISTING, Listing
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

LAYOUT = f"{FOLDER}/ with train, test and meta, as cifar-100-python.tar.gz is unpacked"

_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}
"""All that these pickles may name."""

_LOADED: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}
"""What this process has read: path -> (size and date, content)."""


def cifar100_lt(config: Cifar100LTConfig, seed: int) -> Listing:
    """Train, val and test rows; labels are the fine ones.

    Class i (in the order of labels) keeps int(n_0 (1 / imbalance)^(i / 99)) training images. Which ones, the seed draws, so that a
    longer tail is a part of a shorter one. Up to `val_per_class` of those a class leaves out are val; the rest is not listed.
    Without a long tail all are train.

    Raises DataError if a file is missing or is not the published one.
    """
    root = open_root(config.root)
    files = {
        name: load(root, f"{FOLDER}/{name}", links=config.allow_links_outside) for name in CHECKSUMS
    }
    names = files["meta"]["fine_label_names"]
    train, test = (np.array(files[name]["fine_labels"], np.int64) for name in ("train", "test"))
    split = np.full(len(train), "train", object)
    if config.long_tail is not None:
        split = _long_tailed(train, len(names), config.long_tail, config.val_per_class, seed)
    listed = np.flatnonzero(split != "")
    keys = [*(names[c] for c in train[listed]), *(names[c] for c in test)]
    blank = pa.nulls(len(keys), pa.string())
    columns = {
        "sample_id": [
            *(f"train/{i:05d}" for i in listed),
            *(f"test/{i:05d}" for i in range(len(test))),
        ],
        "path": [f"{FOLDER}/train"] * len(listed) + [f"{FOLDER}/test"] * len(test),
        "row": [*listed.tolist(), *range(len(test))],
        "class_key": keys,
        "split": [*split[listed].tolist(), *["test"] * len(test)],
        "domain": blank,
        "group": blank,
    }
    return Listing(
        table=pa.table(columns, schema=LISTING),
        root=root,
        read=read_cifar,
        stamp=stable_id(CHECKSUMS),
        in_files=False,
        classes=names,
        names={name: name.replace("_", " ") for name in names},
    )


def _long_tailed(
    label: NDArray[np.int64], classes: int, tail: LongTail, val_per_class: int, seed: int
) -> NDArray[np.object_]:
    """train, val or an empty word for each training image, shape (N,)."""
    largest = int(np.bincount(label).max())
    head = min(tail.head or largest, largest)
    order = order_of([f"train/{i:05d}" for i in range(len(label))], seed)
    split = np.full(len(label), "", object)
    for c, size in enumerate(long_tail_sizes(head, tail.imbalance, classes)):
        members = order[label[order] == c]
        kept = max(size, 1)
        split[members[:kept]] = "train"
        split[members[kept : kept + val_per_class]] = "val"
    return split


def read_cifar(root: Store, rows: pa.Table) -> Iterator[bytes | ImageError]:
    """Each row's image as PNG, 32x32; a file is read once a process, as long as its size and date stay."""
    for path, row in zip(rows["path"].to_pylist(), rows["row"].to_pylist(), strict=True):
        try:
            data = load(root, path, links=True)["data"]  # it was looked at when it was listed
        except (DataError, OSError) as error:
            yield ImageError("unreadable", str(error))
        else:
            yield encode_image(
                np.ascontiguousarray(data[row].reshape(3, 32, 32).transpose(1, 2, 0)), "png"
            )


def load(root: Store, path: str, *, links: bool) -> dict[str, Any]:
    """One of the three files. Raises DataError if it is not there or not the published one."""
    info = root.filesystem.get_file_info(root.path(path))
    version = (info.size or 0, info.mtime_ns or 0)
    known = _LOADED.get(root.path(path))
    if known is not None and known[0] == version:
        return known[1]
    data = read_required(root, path, LAYOUT, links=links)
    wanted = CHECKSUMS[path.rsplit("/", 1)[-1]]
    if (found := hashlib.md5(data, usedforsecurity=False).hexdigest()) != wanted:
        raise DataError(
            f"{path}: has MD5 {found}, the published file has {wanted}; unpack cifar-100-python.tar.gz again"
        )
    content = unpickled(path, data)
    _LOADED[root.path(path)] = (version, content)
    return content


def unpickled(path: str, data: bytes) -> Any:
    """What a pickle of arrays, text and numbers holds. Raises DataError naming the first other thing it asks for."""
    return _Arrays(path, data).load()


class _Arrays(pickle.Unpickler):
    def __init__(self, path: str, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError as error:
            raise DataError(
                f"{self._path}: the pickle asks for {module}.{name}; only arrays of numbers are read"
            ) from error
