"""Images of a slice of samples, read as a worker reads them."""

import pickle

import pyarrow as pa
import pytest

from discl_ray.core.images import encode_image
from discl_ray.core.schema import SAMPLES
from discl_ray.core.storage import ROW_GROUP, Store
from discl_ray.data import samples as module
from discl_ray.data.config import AnyDataConfig
from discl_ray.data.listing import inline
from discl_ray.data.sample_images import LOCATED, locate, read_images
from discl_ray.data.samples import read_samples
from discl_ray.errors import IntegrityError
from tests.support.samples import picture, whole


@pytest.fixture
def made(tmp_path, monkeypatch):
    """(samples of 400 images in several files and row groups, bytes by sample)"""
    monkeypatch.setattr(module, "PART", 2 * ROW_GROUP + 5)
    rows = [
        {
            "sample_id": f"s{(i * 7919) % 1000:03d}",
            "class_key": "xy"[i % 2],
            "split": ("train", "train", "train", "val", "test")[i % 5],
            "bytes": encode_image(picture(i), "png"),
        }
        for i in range(400)
    ]
    listing = inline(rows, Store.at("."), "xy")
    samples = read_samples(AnyDataConfig(), listing, seed=0, run=Store.at(tmp_path))
    return samples, {row["sample_id"]: row["bytes"] for row in rows}


def test_a_slice_of_samples_in_any_order_gets_its_own_bytes(made):
    samples, data = made
    assert len(samples.store.list("train", ".parquet")) == 2
    order = [(i * 37) % 400 for i in range(400)]
    rows = samples.located(samples.table.take(pa.array(order)))
    assert rows.schema.equals(LOCATED)
    store = pickle.loads(pickle.dumps(samples.store))  # as Ray sends it  # noqa: S301
    for start in (0, 5, 390):
        part = rows.slice(start, 10)
        full = read_images(store, part)
        assert full.schema.equals(SAMPLES)
        assert full.drop(["image"]).equals(part.select(SAMPLES.names).drop(["image"]))
        images = zip(full["sample_id"].to_pylist(), full["image"].to_pylist(), strict=True)
        assert all(image == {"bytes": data[sample], "path": None} for sample, image in images)
    assert samples.with_images(samples.table.slice(0, 0)).num_rows == 0


def test_only_the_row_groups_of_the_rows_are_read(made):
    samples, data = made
    rows = samples.located(samples.table)
    last = rows.slice(samples.table.num_rows - 1)
    name = rows["part"][0].as_py()
    before = pa.total_allocated_bytes()
    assert read_images(samples.store, last)["image"][0].as_py()["bytes"] in data.values()
    whole_file = bytearray(samples.store.read(name))
    whole_file[whole_file.index(data[rows["sample_id"][0].as_py()]) + 40] ^= 255
    samples.store.write(name, bytes(whole_file))
    second_group = rows.slice(ROW_GROUP, 2)
    assert read_images(samples.store, second_group)["image"].null_count == 0
    with pytest.raises(IntegrityError, match="cut short or garbled"):
        read_images(samples.store, rows.slice(0, 1))
    assert pa.total_allocated_bytes() - before < 2**20


def test_images_that_are_files_keep_their_path(folder, tmp_path):
    samples = whole(folder, tmp_path / "run")
    rows = samples.located(samples.table)
    assert rows["part"].null_count == rows.num_rows
    assert read_images(samples.store, rows).equals(samples.table)


def test_rows_that_moved_or_are_gone_are_named(made):
    samples, _ = made
    rows = samples.located(samples.table.slice(0, 3))
    shifted = rows.set_column(
        rows.column_names.index("row"), "row", pa.array([1, 2, 3], pa.int32())
    )
    with pytest.raises(IntegrityError, match="holds other images than were listed; delete"):
        read_images(samples.store, shifted)
    beyond = rows.set_column(
        rows.column_names.index("row"), "row", pa.array([0, 1, 999], pa.int32())
    )
    with pytest.raises(IntegrityError, match="garbled"):
        read_images(samples.store, beyond)
    for name in samples.store.list("train", ".parquet"):
        samples.store.delete(name)
    with pytest.raises(IntegrityError, match="is gone"):
        read_images(samples.store, rows)
    with pytest.raises(IntegrityError, match="has no image of 3 of its samples"):
        locate(samples.store, rows.select(SAMPLES.names))
