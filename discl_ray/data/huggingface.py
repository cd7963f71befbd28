"""Folders of Hugging Face's `datasets`, read without it.

saved by `save_to_disk`:                 dataset_dict.json, <split>/state.json,
                                         <split>/dataset_info.json, <split>/data-*.arrow
the same of a single split:              state.json, dataset_info.json, data-*.arrow
a repository's Parquet files:            **/train-00000-of-00001.parquet, …

The features tell which column is the image and what the labels are called. They are in
`dataset_info.json`, or in Parquet's metadata.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from discl_ray.core.storage import Store
from discl_ray.data.config import HuggingFaceConfig
from discl_ray.data.files import File, pick, split_of, stat_files
from discl_ray.data.image_cells import BROKEN, Cell, cells, image_kind, runs
from discl_ray.data.listing import Listing
from discl_ray.data.parquet_files import is_parquet, open_parquet, read_parquet
from discl_ray.data.root import guard, open_root
from discl_ray.data.tabular import Source, list_sources, unreadable
from discl_ray.data.wording import shown
from discl_ray.errors import DataError, ImageError

DICT = "dataset_dict.json"
"""Names the splits, at the top of a data set that has several."""

STATE = "state.json"
"""Names the files of one split."""

INFO = "dataset_info.json"
"""Holds the features of one split."""

LOOKED_FOR = f"{DICT} or {STATE} (of save_to_disk), or *.parquet (of a repository)"

END = b"\xff\xff\xff\xff\0\0\0\0"
"""How every Arrow stream ends; one cut between two batches could be taken for a shorter one."""

Features = Mapping[str, Any]
"""Column -> its feature, such as {"_type": "ClassLabel", "names": […]}."""


@dataclass(frozen=True)
class _Saved:
    """A folder that `save_to_disk` wrote."""

    info: str
    """Path of its `dataset_info.json`."""
    features: Features
    """Empty if they are not recorded."""
    sources: list[Source]
    """Its files."""


def huggingface(config: HuggingFaceConfig, _seed: int) -> Listing:
    """All rows of all splits; classes in the order of their labels.

    Splits are called as in SPLIT_WORDS. If none is, they are drawn; if only some are, that is an
    error.

    Raises DataError naming the file if one is missing or broken, if several columns may be the
    image, or if files that belong together have other features.
    """
    root = open_root(config.root)
    saved = _open_saved(root, config.allow_links_outside)
    if saved is None:
        return _list_parquet(config, root)
    features = _agreed({one.info: one.features for one in saved})
    sources: list[Source] = []
    for one in saved:
        sources += one.sources
    if not sources:
        where = f"data.root = '{shown(config.root)}'"
        raise DataError(f"{where}: its {STATE} name no file")
    paths = [source.path for source in sources]
    files = stat_files(root, paths)
    return _listing(config, root, sources, features, files, read_arrow)


def _list_parquet(config: HuggingFaceConfig, root: Store) -> Listing:
    """The rows of a repository's Parquet files."""
    files = pick(root, is_parquet, LOOKED_FOR, links=config.allow_links_outside)
    sources = [open_parquet(root, file.path) for file in files]
    features: dict[str, Features] = {}
    for source in sources:
        features[source.path] = _features_of(source)
    return _listing(config, root, sources, _agreed(features), files, read_parquet)


def _open_saved(root: Store, links: bool) -> list[_Saved] | None:
    """What `save_to_disk` wrote; None if it did not write this folder."""
    if root.exists(DICT):
        described = _json(root, DICT, links)
        names = described.get("splits")
        if not names or not _is_names(names):
            raise DataError(f"{DICT}: 'splits' is not a list of names")
        splits = _our_splits(names)
        return [_saved(root, name, split, links) for name, split in splits.items()]
    if root.exists(STATE):
        state = _json(root, STATE, links)
        name = state.get("_split")
        # null in a data set that was never divided: then the splits are drawn
        split = split_of(name) if isinstance(name, str) else None
        return [_saved(root, "", split, links)]
    return None


def _is_names(value: Any) -> bool:
    """Whether a value from JSON is a list of names."""
    if not isinstance(value, list):
        return False
    return all(isinstance(name, str) for name in value)


def _our_splits(names: Sequence[str]) -> dict[str, str | None]:
    """The data set's word for each split -> ours. Raises DataError if only some are known."""
    splits = {name: split_of(name) for name in names}
    unknown = [name for name, split in splits.items() if split is None]
    some_are_known = len(unknown) < len(splits)
    if unknown and some_are_known:
        first = shown(unknown[0])
        raise DataError(
            f"{DICT}: split '{first}' is none of train, validation and test; "
            f"remove it from {DICT}, or rename it there and its folder"
        )
    return splits


def _saved(root: Store, folder: str, split: str | None, links: bool) -> _Saved:
    """A folder that `save_to_disk` wrote. Raises DataError if it is incomplete."""
    place = posixpath.join(folder, STATE)
    state = _json(root, place, links)
    info = posixpath.join(folder, INFO)
    described = _json(root, info, links)
    features = described.get("features")
    where = shown(place)
    indices = [value for key, value in state.items() if "indices" in key]
    if any(indices):
        raise DataError(
            f"{where}: rows are chosen by indices, as old versions of datasets did; "
            "save it again with a newer one"
        )
    paths: list[str] = []
    try:
        for entry in state["_data_files"]:
            given = posixpath.join(folder, entry["filename"])
            path = guard(root, given, links=links)
            paths.append(path)
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: '_data_files' is not a list of file names") from error
    except ValueError as error:
        raise DataError(f"{where}: a path in '_data_files' {error}") from error
    return _Saved(
        info=info,
        features=features if isinstance(features, dict) else {},
        sources=[_open_arrow(root, path, split) for path in paths],
    )


def _json(root: Store, path: str, links: bool) -> dict[str, Any]:
    """A JSON file of `save_to_disk`. Raises DataError if it is not an object."""
    try:
        path = guard(root, path, links=links)
    except ValueError as error:
        raise DataError(f"'{shown(path)}' {error}") from error
    try:
        value = json.loads(root.read(path))
    except FileNotFoundError as error:
        raise DataError(f"{shown(path)}: no such file; save_to_disk writes it") from error
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8 is a ValueError, too
        where = shown(path)
        broken = shown(str(error))
        raise DataError(f"{where}: cannot be read as JSON: {broken}") from error
    if not isinstance(value, dict):
        raise DataError(f"{shown(path)}: is not a JSON object")
    return value


def _features_of(source: Source) -> Features:
    """The features in a Parquet file's metadata; none if `datasets` did not write it."""
    metadata = source.schema.metadata or {}
    raw = metadata.get(b"huggingface")
    if raw is None:
        return {}
    try:
        described = json.loads(raw)
        features = described["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        where = shown(source.path)
        broken = shown(str(error))
        raise DataError(f"{where}: its metadata `huggingface` is broken: {broken}") from error
    return features if isinstance(features, dict) else {}


def _agreed(features: Mapping[str, Features]) -> Features:
    """The features that all files agree on, by file.

    Raises DataError if they name the labels of a column differently.
    """
    (first, one), *others = features.items()
    for file, other in others:
        name = _disagreement(one, other)
        if name is not None:
            files = f"{shown(first)} and {shown(file)}"
            column = f"column '{shown(name)}'"
            raise DataError(
                f"{files} name the labels of {column} differently; "
                "if they are two data sets, data.root is the folder of one of them"
            )
    return one


def _disagreement(one: Features, other: Features) -> str | None:
    """A column whose labels two files name differently, if there is one."""
    for name in {*one, *other}:
        types = (_type(one, name), _type(other, name))
        if "ClassLabel" in types and one.get(name) != other.get(name):
            return name
    return None


def _type(features: Features, name: str) -> str | None:
    """`Image`, `ClassLabel`, …"""
    feature = features.get(name)
    return feature.get("_type") if isinstance(feature, dict) else None


def _listing(
    config: HuggingFaceConfig,
    root: Store,
    sources: list[Source],
    features: Features,
    files: Sequence[File],
    read: Any,
) -> Listing:
    """The rows of all files; columns are the configured ones, or follow from the features."""
    labels = [name for name in features if _type(features, name) == "ClassLabel"]
    label = config.label or _only(labels) or "label"
    image = config.image or _image_column(sources[0], features)
    given = {"image": image, "label": label}
    optional: tuple[str, ...] = ()
    if config.group is not None:
        given["group"] = config.group
        optional = ("group",)
    return list_sources(
        root,
        sources,
        given,
        optional=optional,
        files=files,
        read=read,
        links=config.allow_links_outside,
        names=_label_names(features, label),
        remedy="data.image, data.label and data.group",
    )


def _only(names: Sequence[str]) -> str | None:
    """The only one of some names, if there is one."""
    return names[0] if len(names) == 1 else None


def _image_column(source: Source, features: Features) -> str:
    """The only Image feature; without features, the only column of encoded images; else `image`."""
    images = [name for name in features if _type(features, name) == "Image"]
    if not features:
        images = _encoded_columns(source.schema)
    count = len(images)
    if count > 1:
        where = shown(source.path)
        names = ", ".join(shown(name) for name in images)
        several = f"{count} columns are images: {names}"
        raise DataError(f"{where}: {several}; choose with data.image")
    return _only(images) or "image"


def _encoded_columns(schema: pa.Schema) -> list[str]:
    """Columns that hold bytes of images; a column of text may hold anything."""
    names: list[str] = []
    for field in schema:
        if image_kind(field.type) in ("struct", "bytes"):
            names.append(field.name)
    return names


def _label_names(features: Features, label: str) -> list[str] | None:
    """The class names of a ClassLabel, by label."""
    if _type(features, label) != "ClassLabel":
        return None
    feature = features[label]
    names = feature.get("names")
    if not names:
        return None
    if not _is_names(names) or len(set(names)) < len(names):
        where = f"the feature of column '{shown(label)}'"
        raise DataError(f"{where}: the names of a ClassLabel are not a list of different texts")
    return names


def _open_arrow(root: Store, path: str, split: str | None) -> Source:
    """An Arrow stream by its schema. Raises DataError if it is broken or cut off."""
    try:
        with _open_file(root, path) as file:
            size = file.size()
            schema = pa.ipc.open_stream(file).schema
            last = size - len(END)
            file.seek(max(last, 0))
            if file.read(len(END)) != END:
                raise ValueError("its end is missing")
    except FileNotFoundError as error:
        raise DataError(f"{shown(path)}: no such file, but {STATE} names it") from error
    except BROKEN as error:
        raise unreadable(path, "an Arrow stream", error) from error
    read = partial(_read_columns, root, path)
    return Source(path=path, schema=schema, split=split, read=read)


def _open_file(root: Store, path: str) -> pa.NativeFile:
    """An open file, memory-mapped where that is possible: unwanted images are never read."""
    place = root.path(path)
    if root.local is not None:
        return pa.memory_map(place)
    return root.filesystem.open_input_file(place)


def _stream(file: pa.NativeFile, columns: Sequence[str]) -> pa.RecordBatchStreamReader:
    """Some columns of a stream."""
    whole = pa.ipc.open_stream(file)
    names = whole.schema.names
    file.seek(0)  # opening a stream reads its schema, which the next one needs again
    chosen = [names.index(column) for column in columns]
    options = pa.ipc.IpcReadOptions(included_fields=chosen)
    return pa.ipc.open_stream(file, options=options)


def _read_columns(root: Store, path: str, columns: list[str]) -> pa.Table:
    """Some columns of an Arrow stream."""
    with _open_file(root, path) as file:
        return _stream(file, columns).read_all()


def read_arrow(root: Store, rows: pa.Table, *, column: str, links: bool) -> Iterator[Cell]:
    """The images of LISTING rows from Arrow streams.

    A stream has no index: batches before the first wanted row are skipped.
    """
    for path, wanted in runs(rows):
        try:
            with _open_file(root, path) as file:
                batches = iter(_stream(file, [column]))
                yield from cells(root, batches, 0, wanted, links=links)
        except BROKEN as broken:
            # before the first image; `cells` reports what is broken later row by row
            error = ImageError("unreadable", f"{path}: {broken}")
            yield from [error] * len(wanted)
