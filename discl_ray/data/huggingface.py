"""Folders of Hugging Face's `datasets`, read without it.

    dataset_dict.json, <split>/state.json, <split>/dataset_info.json, <split>/data-*.arrow   saved by `save_to_disk`
    state.json, dataset_info.json, data-*.arrow                                              the same of a single split
    **/train-00000-of-00001.parquet, …                                                       a repository's Parquet files

Which column is the image, and what the labels are called, is in the features: in `dataset_info.json`, or in Parquet's metadata.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from discl_ray.core.storage import Store
from discl_ray.data.config import HuggingFaceConfig
from discl_ray.data.files import File, pick, split_of, stat_files
from discl_ray.data.listing import Listing
from discl_ray.data.root import guard, open_root
from discl_ray.data.tabular import (
    BROKEN,
    Source,
    cells,
    image_kind,
    is_parquet,
    list_sources,
    open_parquet,
    read_parquet,
    runs,
    unreadable,
)
from discl_ray.data.wording import shown
from discl_ray.errors import DataError, ImageError

LOOKED_FOR = "dataset_dict.json or state.json (of save_to_disk), or *.parquet (of a repository)"

END = b"\xff\xff\xff\xff\0\0\0\0"
"""How every Arrow stream ends; one that was cut between two batches reads like a shorter one."""

Features = Mapping[str, Any]
"""Column -> its feature, such as {"_type": "ClassLabel", "names": […]}."""


def huggingface(config: HuggingFaceConfig, _seed: int) -> Listing:
    """All rows of all splits; classes in the order of their labels.

    Splits are called as in SPLIT_WORDS. If none is, they are open; if only some are, that is an error.

    Raises DataError naming the file if one is missing or broken, if several columns may be the image, or if files that belong
    together have other features.
    """
    root = open_root(config.root)
    links = config.allow_links_outside
    if root.exists("dataset_dict.json"):
        names = _json(root, "dataset_dict.json", links).get("splits")
        if (
            not isinstance(names, list)
            or not all(isinstance(name, str) for name in names)
            or not names
        ):
            raise DataError("dataset_dict.json: 'splits' is no list of names")
        splits = _split_words(names)
        saved = [_saved(root, name, splits[name], links) for name in names]
    elif root.exists("state.json"):
        split = _json(root, "state.json", links).get("_split")
        saved = [_saved(root, "", split_of(split) if isinstance(split, str) else None, links)]
    else:
        return _repository(config, root)
    features = _same(
        {posixpath.join(folder, "dataset_info.json"): features for folder, features, _ in saved}
    )
    sources = [source for _, _, sources in saved for source in sources]
    if not sources:
        raise DataError(f"data.root = '{shown(config.root)}': its state.json name no file")
    files = stat_files(root, [source.path for source in sources])
    return _listing(config, root, sources, features, files, read_arrow)


def _repository(config: HuggingFaceConfig, root: Store) -> Listing:
    files = pick(root, is_parquet, LOOKED_FOR, links=config.allow_links_outside)
    sources = [open_parquet(root, file.path) for file in files]
    features = _same({source.path: _features_of(source) for source in sources})
    return _listing(config, root, sources, features, files, read_parquet)


def _listing(
    config: HuggingFaceConfig,
    root: Store,
    sources: list[Source],
    features: Features,
    files: Sequence[File],
    read: Any,
) -> Listing:
    label = (
        config.label
        or _only([name for name in features if _type(features, name) == "ClassLabel"])
        or "label"
    )
    given = {"image": config.image or _image_column(sources[0], features), "label": label}
    if config.group is not None:
        given["group"] = config.group
    names = _label_names(features, label)
    optional = ("group",) if config.group is not None else ()
    return list_sources(
        root,
        sources,
        given,
        optional=optional,
        files=files,
        read=read,
        links=config.allow_links_outside,
        names=names,
        mend="data.image, data.label and data.group",
    )


def _only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def _type(features: Features, name: str) -> str | None:
    feature = features.get(name)
    return feature.get("_type") if isinstance(feature, dict) else None


def _image_column(source: Source, features: Features) -> str:
    """The only Image feature; without features, the only column of encoded images; else `image`."""
    images = [name for name in features if _type(features, name) == "Image"]
    if not features:
        images = [
            field.name for field in source.schema if image_kind(field.type) in ("struct", "bytes")
        ]
    if len(images) > 1:
        raise DataError(
            f"{shown(source.path)}: {len(images)} columns are images: {', '.join(map(shown, images))}; choose with data.image"
        )
    return _only(images) or "image"


def _label_names(features: Features, label: str) -> list[str] | None:
    """What a ClassLabel's numbers stand for."""
    if _type(features, label) != "ClassLabel":
        return None
    names = features[label].get("names")
    if not names:
        return None
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) < len(names)
    ):
        raise DataError(
            f"the feature of column '{shown(label)}': the names of a ClassLabel are no list of different texts"
        )
    return names


def _split_words(names: Sequence[str]) -> dict[str, str | None]:
    splits = {name: split_of(name) for name in names}
    unknown = [name for name, split in splits.items() if split is None]
    if unknown and len(unknown) < len(names):
        raise DataError(
            f"dataset_dict.json: split '{shown(unknown[0])}' is none of train, validation and test; "
            "take it out of dataset_dict.json, or rename it there with its folder"
        )
    return splits


def _same(features: Mapping[str, Features]) -> Features:
    """The features all files agree on: what is an image, and what the labels are called."""
    (first, one), *others = features.items()
    for file, other in others:
        for name in {*one, *other}:
            if "ClassLabel" in (_type(one, name), _type(other, name)) and one.get(
                name
            ) != other.get(name):
                raise DataError(
                    f"{shown(first)} and {shown(file)} name the labels of column '{shown(name)}' differently; "
                    "if they are two data sets, data.root is the folder of one of them"
                )
    return one


def _json(root: Store, path: str, links: bool) -> dict[str, Any]:
    try:
        path = guard(root, path, links=links)
    except ValueError as error:
        raise DataError(f"'{shown(path)}' {error}") from error
    try:
        value = json.loads(root.read(path))
    except FileNotFoundError as error:
        raise DataError(f"{shown(path)}: no such file; save_to_disk writes it") from error
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8 is a ValueError, too
        raise DataError(f"{shown(path)}: cannot be read as JSON: {shown(str(error))}") from error
    if not isinstance(value, dict):
        raise DataError(f"{shown(path)}: is no JSON object")
    return value


def _features_of(source: Source) -> Features:
    """The features in a Parquet file's metadata; none if it was not written by `datasets`."""
    raw = (source.schema.metadata or {}).get(b"huggingface")
    try:
        features = {} if raw is None else json.loads(raw)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{shown(source.path)}: its metadata `huggingface` is broken: {shown(str(error))}"
        ) from error
    return features if isinstance(features, dict) else {}


def _saved(
    root: Store, folder: str, split: str | None, links: bool
) -> tuple[str, Features, list[Source]]:
    """A folder `save_to_disk` wrote: its features and its files."""
    state = _json(root, posixpath.join(folder, "state.json"), links)
    features = _json(root, posixpath.join(folder, "dataset_info.json"), links).get("features")
    where = shown(posixpath.join(folder, "state.json"))
    if any(value for key, value in state.items() if "indices" in key):
        raise DataError(
            f"{where}: rows are chosen by indices, as old versions of datasets did; save it again with a newer one"
        )
    try:
        names = [entry["filename"] for entry in state["_data_files"]]
        paths = [guard(root, posixpath.join(folder, name), links=links) for name in names]
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: '_data_files' is no list of file names") from error
    except ValueError as error:
        raise DataError(f"{where}: a path in '_data_files' {error}") from error
    return (
        folder,
        features if isinstance(features, dict) else {},
        [_open_arrow(root, path, split) for path in paths],
    )


def _open_arrow(root: Store, path: str, split: str | None) -> Source:
    try:
        with _bytes_of(root, path) as file:
            size = file.size()
            schema = pa.ipc.open_stream(file).schema
            file.seek(max(size - len(END), 0))
            if file.read(len(END)) != END:
                raise ValueError("its end is missing")
    except FileNotFoundError as error:
        raise DataError(f"{shown(path)}: no such file, but state.json names it") from error
    except BROKEN as error:
        raise unreadable(path, "an Arrow stream", error) from error
    return Source(path=path, schema=schema, split=split, read=partial(_read_columns, root, path))


def _bytes_of(root: Store, path: str) -> pa.NativeFile:
    # mapped, so that images that are not wanted are never read
    return (
        pa.memory_map(root.path(path))
        if root.local is not None
        else root.filesystem.open_input_file(root.path(path))
    )


def _stream(file: pa.NativeFile, columns: Sequence[str]) -> pa.RecordBatchStreamReader:
    """Some columns of a stream."""
    names = pa.ipc.open_stream(file).schema.names
    file.seek(0)
    chosen = [names.index(column) for column in columns]
    return pa.ipc.open_stream(file, options=pa.ipc.IpcReadOptions(included_fields=chosen))


def _read_columns(root: Store, path: str, columns: list[str]) -> pa.Table:
    with _bytes_of(root, path) as file:
        return _stream(file, columns).read_all()


def read_arrow(
    root: Store, rows: pa.Table, *, column: str, links: bool
) -> Iterator[bytes | ImageError]:
    """The images of LISTING rows from Arrow streams; batches before the first wanted one are passed over."""
    for path, wanted in runs(rows):
        try:
            with _bytes_of(root, path) as file:
                yield from cells(root, iter(_stream(file, [column])), 0, wanted, links=links)
        except BROKEN as broken:  # before the first image; what comes later is told row by row
            yield from [ImageError("unreadable", f"{path}: {broken}")] * len(wanted)
