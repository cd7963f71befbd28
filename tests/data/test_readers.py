"""What the general readers list, read to its end.

SAMPLES come from a table of bytes and from a manifest of files.
"""

import csv
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from discl_ray.config import load_config
from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data import READERS, name_of_samples, read_samples
from discl_ray.data.config import DataConfig
from tests.support.runs import ROOT

COUNT = 60


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    made = [
        encode_image(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8), "png") for _ in range(COUNT)
    ]
    made[7] = b"no image"
    return made, [("cat", "dog", "red fox")[i % 3] for i in range(COUNT)]


def read(name, root, run):
    config = load_config(ROOT / "conf" / f"{name}.yaml", [f"data.root={root}"])
    return read_samples(config.data, 0, Store.at(run))


def test_samples_are_named_by_what_lies_there_today(images, tmp_path):
    data, labels = images
    folder = tmp_path / "data"
    folder.mkdir()
    table = pa.table({"image": pa.array(data, pa.binary()), "label": labels})
    pq.write_table(table, folder / "a.parquet")
    config = load_config(ROOT / "conf" / "parquet.yaml", [f"data.root={folder}"]).data
    samples = read_samples(config, 0, Store.at(tmp_path / "run"))
    assert name_of_samples(config, 0) == samples.store.name
    assert name_of_samples(config, 1) != samples.store.name
    pq.write_table(table.slice(1), folder / "a.parquet")
    assert name_of_samples(config, 0) != samples.store.name


def test_a_parquet_file_as_python_lists_give_it(images, tmp_path):
    data, labels = images
    (tmp_path / "data").mkdir()
    table = pa.table(
        {"image": pa.array([{"bytes": d, "path": None} for d in data]), "label": labels}
    )  # `path` is of type null
    pq.write_table(table, tmp_path / "data" / "a.parquet", row_group_size=7)
    samples = read("parquet", tmp_path / "data", tmp_path / "run")
    assert samples.rejects.select(["sample_id", "reason"]).to_pylist() == [
        {"sample_id": "a.parquet#7", "reason": "not_an_image"}
    ]
    assert samples.table.num_rows == COUNT - 1
    full = samples.with_images(samples.table)
    for row in full.to_pylist():
        number = int(row["sample_id"].split("#")[1])
        assert row["image"]["bytes"] == data[number]
        assert row["class_name"] == labels[number]


def test_a_manifest_of_files_in_groups(images, tmp_path):
    data, labels = images
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "group"])
        for i, content in enumerate(data):
            (tmp_path / "data" / f"{i}.png").write_bytes(content)
            rows.writerow([f"{i}.png", labels[i], f"place {i % 12}"])
        rows.writerow(["gone.png", "cat", "place 1"])
    samples = read("manifest", tmp_path / "data", tmp_path / "run")
    reasons = dict(
        zip(
            samples.rejects["sample_id"].to_pylist(),
            samples.rejects["reason"].to_pylist(),
            strict=True,
        )
    )
    assert reasons == {"7.png": "not_an_image", "gone.png": "missing"}
    splits = {}
    for row in samples.table.to_pylist():
        splits.setdefault(row["group"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) >= {"train", "test"}


def test_every_data_set_of_the_configuration_has_a_reader():
    configs = get_args(get_args(DataConfig)[0])
    names = {config.model_fields["name"].default for config in configs}
    assert names - {""} == set(READERS)  # the empty one is any reader from outside the package
