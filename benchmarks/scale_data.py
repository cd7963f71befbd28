"""Data sets of many files: what each reader lists, and what becomes of the listing."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scale_steps import CLASSES, Step, listed
from discl_ray.core.columns import not_equal
from discl_ray.core.schema import PREDICTIONS
from discl_ray.core.storage import Store
from discl_ray.data import list_dataset
from discl_ray.data.config import (
    FilesConfig,
    ImageFolderConfig,
    ImageNetLTConfig,
    INaturalistConfig,
    IWildCamConfig,
    ManifestConfig,
    ParquetConfig,
)
from discl_ray.data.listing import Listing
from discl_ray.data.samples import open_samples, write_scanned
from discl_ray.plan.config import HardConfig
from discl_ray.plan.hardness import hard_samples

PARTS = 10
"""Parquet files of a data set."""

CELL_BYTES = 100
"""Of an image in them; a listing reads none."""

CAMERAS = 300


def file_names(count: int) -> list[str]:
    """Paths below `train/`, class by class, as ImageNet has them."""
    return [f"{_class_id(i, count)}/{_class_id(i, count)}_{i}.JPEG" for i in range(count)]


def _class_of(number: int, count: int) -> int:
    classes = max(2, min(CLASSES, count // 20))
    return number * classes // count


def _class_id(number: int, count: int) -> str:
    return f"n{_class_of(number, count):08d}"


def write_files(folder: Path, count: int) -> None:
    """Empty files with the names of photographs, and what each reader finds them by."""
    names = file_names(count)
    labels = [_class_of(number, count) for number in range(count)]
    train = folder / "train"
    for class_id in dict.fromkeys(name.partition("/")[0] for name in names):
        (train / class_id).mkdir(parents=True)
    for name in names:
        os.close(os.open(train / name, os.O_CREAT | os.O_WRONLY))
    _write_csv(
        folder / "manifest.csv",
        ("path", "label"),
        ((f"train/{name}", f"class {label}") for name, label in zip(names, labels, strict=True)),
    )
    _write_imagenet_lt(folder, names, labels)
    _write_inaturalist(folder, names, labels)
    _write_iwildcam(folder, names, labels)
    _write_parquet(folder / "parquet", labels)


def _write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def _split_of(number: int) -> str:
    """Of ten consecutive files eight are to train on."""
    return {8: "val", 9: "test"}.get(number % 10, "train")


def _write_imagenet_lt(folder: Path, names: list[str], labels: list[int]) -> None:
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number, (name, label) in enumerate(zip(names, labels, strict=True)):
        lines[_split_of(number)].append(f"train/{name} {label}\n")
    for split, of_split in lines.items():
        (folder / f"ImageNet_LT_{split}.txt").write_text("".join(of_split))
    classes = range(max(labels) + 1)
    called = [f"n{label:08d} class {label:04d}\n" for label in classes]
    (folder / "classnames.txt").write_text("".join(called))


def _write_inaturalist(folder: Path, names: list[str], labels: list[int]) -> None:
    categories = [{"id": label, "name": f"class {label}"} for label in range(max(labels) + 1)]
    for file, is_test in (("train2018.json", False), ("val2018.json", True)):
        here = [n for n in range(len(names)) if (_split_of(n) == "test") == is_test]
        content = {
            "images": [{"id": n, "file_name": f"train/{names[n]}"} for n in here],
            "annotations": [{"id": n, "image_id": n, "category_id": labels[n]} for n in here],
            "categories": categories,
        }
        (folder / file).write_text(json.dumps(content))


def _write_iwildcam(folder: Path, names: list[str], labels: list[int]) -> None:
    words = {"train": "train", "val": "id_val", "test": "test"}
    header = ("split", "filename", "y", "location_remapped")
    rows = (
        (words[_split_of(number)], name, label, number % CAMERAS)
        for number, (name, label) in enumerate(zip(names, labels, strict=True))
    )
    _write_csv(folder / "metadata.csv", header, rows)
    categories = ((label, f"class {label}") for label in range(max(labels) + 1))
    _write_csv(folder / "categories.csv", ("y", "name"), categories)


def _write_parquet(folder: Path, labels: list[int]) -> None:
    folder.mkdir()
    image = bytes(CELL_BYTES)
    for number, part in enumerate(np.array_split(np.array(labels), PARTS)):
        columns = {
            "image": pa.repeat(image, len(part)),
            "label": pa.array([f"class {label}" for label in part.tolist()]),
        }
        # Without a dictionary, which would hold the one image once.
        table = pa.table(columns)
        pq.write_table(table, folder / f"part-{number}.parquet", use_dictionary=["label"])


def ask_system(folder: Path) -> None:
    """Every folder listed, and size and date of every file, as bare as Python can."""
    open_folders = [str(folder / "train")]
    while open_folders:
        with os.scandir(open_folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    open_folders.append(entry.path)
                else:
                    entry.stat()


def _reader(kind: Callable[..., FilesConfig], what: str, root: str = "") -> Step:
    """The listing of a reader."""
    name = str(kind.model_fields["name"].default)  # pyright: ignore[reportFunctionMemberAccess]
    return Step(
        name=f"list_{name}",
        title=f"listing: {name}, {what}",
        count=100_000,
        unit="files",
        prepare=write_files,
        load=lambda folder, _count: kind(root=str(folder / root)),
        run=lambda config: list_dataset(config, 0),
    )


FILES = ImageFolderConfig(root="/photographs")


def write_samples(work: tuple[Store, Listing, pa.Table]) -> None:
    """What a reader does after the images are decoded: splits, hashes, SAMPLES on disk."""
    store, listing, found = work
    write_scanned(FILES, listing, found, listing.keys, seed=0, store=store)


def _to_write(folder: Path, count: int) -> tuple[Store, Listing, pa.Table]:
    return Store.at(folder / "samples-00000000"), *listed(folder, count)


def samples_written(folder: Path, count: int) -> None:
    """SAMPLES of a listing, to be opened."""
    write_samples(_to_write(folder, count))


def _samples(folder: Path, _count: int) -> Store:
    return Store.at(folder / "samples-00000000")


def _opened_table(folder: Path, count: int) -> pa.Table:
    return open_samples(_samples(folder, count)).table


def _with_predictions(folder: Path, count: int) -> tuple[pa.Table, pa.Table]:
    """SAMPLES, and what a classifier might say of them."""
    table = _opened_table(folder, count)
    rows = table.num_rows
    rng = np.random.default_rng(rows)
    probability = rng.uniform(size=rows).astype(np.float32)
    columns: dict[str, Any] = {
        "sample_id": table["sample_id"],
        "label": table["label"],
        "prob_true": pa.array(probability),
        "pred": table["label"],
        "prob_pred": pa.array(probability),
        "fold": pa.array(np.zeros(rows, np.int32)),
        "scorer": pa.repeat("model", rows),
    }
    predictions = pa.table(columns, schema=PREDICTIONS)
    return table, predictions.filter(not_equal(table["split"], "test"))


DATA = (
    Step(
        name="stat",
        title="the system's part of it: folders listed, size and date of each file",
        count=100_000,
        unit="files",
        prepare=write_files,
        load=lambda folder, _count: folder,
        run=ask_system,
    ),
    _reader(ImageFolderConfig, "class folders"),
    _reader(ManifestConfig, "a CSV file"),
    _reader(ImageNetLTConfig, "three lists"),
    _reader(INaturalistConfig, "annotations as JSON"),
    _reader(IWildCamConfig, "a CSV file"),
    _reader(ParquetConfig, "ten files with images", "parquet"),
    Step(
        name="samples",
        title="after decoding: splits, duplicates, hashes, SAMPLES written",
        count=100_000,
        unit="files",
        load=_to_write,
        run=write_samples,
    ),
    Step(
        name="open_samples",
        title="SAMPLES opened",
        count=100_000,
        unit="files",
        prepare=samples_written,
        load=_samples,
        run=open_samples,
    ),
    Step(
        name="hard_classes",
        title="hard samples: images of rare classes",
        count=100_000,
        unit="files",
        prepare=samples_written,
        load=_opened_table,
        run=lambda table: hard_samples(table, HardConfig(below=10**9)),
    ),
    Step(
        name="hard_confidence",
        title="hard samples: the least confident",
        count=100_000,
        unit="files",
        prepare=samples_written,
        load=_with_predictions,
        run=lambda work: hard_samples(work[0], HardConfig(rule="confidence"), work[1]),
    ),
)
