"""Images of a data set on their way to actors that judge them, and what comes back."""

import pyarrow as pa
import pytest

from discl_ray.cluster.predicting import (
    PREDICTED,
    collect_predictions,
    predicted_rows,
    stream_images,
    watched,
)
from discl_ray.cluster.watchdog import Snapshot
from discl_ray.config import RunConfig
from discl_ray.core.schema import PREDICTIONS, SAMPLES
from discl_ray.core.storage import Store
from discl_ray.process.progress import Progress

RUN = RunConfig()


def look(progress: Progress) -> Snapshot:
    return Snapshot(token=progress.done, waiting_for="a test")


def fail(progress: Progress) -> None:
    progress.advance(1)
    raise ValueError("broken")


def samples(*splits: str) -> pa.Table:
    rows = []
    for number, split in enumerate(splits):
        image = {"bytes": f"image {number}".encode(), "path": None}
        rows.append({"sample_id": f"{number}", "split": split, "label": number, "image": image})
    return pa.Table.from_pylist(rows, schema=SAMPLES)


def test_nobody_predicts_test_images() -> None:
    table = samples("test", "train", "val", "train")
    assert predicted_rows(table)["sample_id"].to_pylist() == ["1", "2", "3"]
    assert PREDICTED == ("train", "val")


def test_the_line_of_progress_is_ended_when_the_work_is_done(capsys) -> None:
    progress = Progress(2, "images", live=True)
    with watched(progress, look, RUN):
        progress.advance(2)
        assert Progress.open is progress
    assert Progress.open is None
    assert capsys.readouterr().out.endswith("\n")


def test_the_line_of_progress_is_ended_when_the_work_fails() -> None:
    progress = Progress(2, "images", live=True)
    with pytest.raises(ValueError, match="broken"), watched(progress, look, RUN):
        fail(progress)
    assert Progress.open is None


@pytest.mark.timeout(300)
def test_images_of_train_and_val_are_streamed_and_predictions_collected(
    ray_local, tmp_path, capsys
) -> None:
    store = Store.at(tmp_path)
    tables = {"train": samples("train", "train"), "val": samples("val"), "test": samples("test")}
    for split, table in tables.items():
        store.write_table(f"{split}/part-0.parquet", table)
    images = stream_images(store)
    rows = images.take_all()
    assert sorted(row["image"]["bytes"] for row in rows) == [b"image 0", b"image 0", b"image 1"]
    assert set(rows[0]) == {"sample_id", "label", "image"}

    import ray

    predicted = PREDICTIONS.empty_table().to_pylist()
    for number in range(3):
        row = {field.name: None for field in PREDICTIONS}
        predicted.append({**row, "sample_id": f"{number}"})
    table = pa.Table.from_pylist(predicted, schema=PREDICTIONS)
    found = collect_predictions(ray.data.from_arrow(table), 3, look, RUN)
    assert found.schema.equals(PREDICTIONS)
    assert sorted(found["sample_id"].to_pylist()) == ["0", "1", "2"]
    assert "3/3 images judged" in capsys.readouterr().out
