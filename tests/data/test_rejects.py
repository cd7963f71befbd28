import shutil

import pyarrow as pa
import pytest

from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.config import AnyDataConfig
from discl_ray.data.listing import REJECTS, inline
from discl_ray.data.rejects import EXAMPLES, NAMED, broken_lines, conflict_lines
from discl_ray.data.samples import read_samples
from discl_ray.data.summary import summarize_samples
from discl_ray.errors import DataError
from tests.support.samples import picture, read, whole


def test_too_many_broken_images_end_the_job_by_name(folder, tmp_path):
    for i in range(10):
        (folder / "ant" / f"{i:02d}.png").write_bytes(b"")
    with pytest.raises(
        DataError,
        match=(
            r"10 of 40 images cannot be used(?s:.)*ant/00\.png: not_an_image"
            r"(?s:.)*rejects(?s:.)*max_bad_fraction"
        ),
    ):
        read(folder, tmp_path / "run")
    (list_,) = (tmp_path / "run").rglob("*.*")
    rejects = Store.at(list_.parent).read_table("rejects.parquet")
    assert rejects["sample_id"].to_pylist() == [f"ant/{i:02d}.png" for i in range(10)]


def test_one_class_and_no_training_image_are_refused(tmp_path):
    row = {
        "sample_id": "a",
        "class_key": "x",
        "split": "train",
        "bytes": encode_image(picture(0), "png"),
    }
    with pytest.raises(DataError, match="only one class"):
        read_samples(AnyDataConfig(), inline([row], Store.at(".")), seed=0, run=Store.at(tmp_path))
    rows = [{**row, "split": "test"}, {**row, "sample_id": "b", "class_key": "y", "split": "val"}]
    with pytest.raises(DataError, match="no training image"):
        read_samples(AnyDataConfig(), inline(rows, Store.at(".")), seed=0, run=Store.at(tmp_path))


def test_the_same_bytes_under_two_labels_are_named_and_in_no_split(folder, tmp_path):
    for i in range(3):
        shutil.copy(folder / "ant" / f"{i:02d}.png", folder / "bee" / f"copy{i}.png")
    shutil.copy(folder / "ant" / "00.png", folder / "ant" / "twin.png")
    samples = whole(folder, tmp_path / "run")
    two = {
        *(f"ant/{i:02d}.png" for i in range(3)),
        *(f"bee/copy{i}.png" for i in range(3)),
        "ant/twin.png",
    }
    assert set(samples.rejects["sample_id"].to_pylist()) == two
    assert samples.rejects["reason"].unique().to_pylist() == ["two_labels"]
    assert not two & set(samples.table["sample_id"].to_pylist())
    words = summarize_samples(samples)
    assert "7 files have the same bytes under two classes" in words
    assert (
        "ant/00.png: two_labels: 'ant' here, and the same bytes are 'bee' in bee/copy0.png" in words
    )
    with pytest.raises(
        DataError, match=r"7 files have the same bytes under two classes(?s:.)*data\.conflicts=drop"
    ):
        whole(folder, tmp_path / "again", conflicts="refuse")
    assert list((tmp_path / "again").rglob("rejects.parquet"))


def test_links_out_of_the_root_are_rejects_and_a_few_end_no_job(folder, tmp_path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(encode_image(picture(900), "png"))
    (folder / "ant" / "link.png").symlink_to(outside)
    (tmp_path / "wasps").mkdir()
    (folder / "wasp").symlink_to(tmp_path / "wasps")
    samples = whole(folder, tmp_path / "run")
    assert set(samples.rejects["sample_id"].to_pylist()) == {"ant/link.png", "wasp"}
    assert (
        "wasp: refused: is a symbolic link out of data.root; data.allow_links_outside=true follows "
        "it" in summarize_samples(samples)
    )
    followed = whole(folder, tmp_path / "run", allow_links_outside=True)
    assert "ant/link.png" in followed.table["sample_id"].to_pylist()
    links = tmp_path / "links"
    links.mkdir()
    (links / "ant").symlink_to(folder / "ant")
    with pytest.raises(
        DataError,
        match=r"1 of 1 images cannot be used(?s:.)*ant: refused: .*data\.allow_links_outside=true",
    ):
        whole(links, tmp_path / "run2")


def rejects(count, reason):
    rows = [
        {"sample_id": f"s{i}", "reason": reason, "detail": f"{reason}: odd"} for i in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS)


def test_many_broken_images_are_counted_by_reason(tmp_path):
    store = Store.at(tmp_path)
    lines = broken_lines(rejects(NAMED, "missing"), store)
    assert lines[0] == "    s0: missing: odd"
    assert len(lines) == NAMED + 1
    lines = broken_lines(rejects(NAMED + 5, "missing"), store)
    assert lines[-2] == f"    and 5 more ({NAMED + 5} missing)"
    assert lines[-1] == f"    the whole list: {store.path('rejects.parquet')}"


def test_conflicts_are_told_with_some_examples(tmp_path):
    store = Store.at(tmp_path)
    assert conflict_lines(rejects(3, "missing"), store) == []
    lines = conflict_lines(rejects(EXAMPLES + 2, "two_labels"), store)
    assert lines[0].startswith(f"  {EXAMPLES + 2} files have the same bytes under two classes")
    assert lines[-1].startswith("    and 2 more in ")
    assert len(lines) == EXAMPLES + 2


def test_classes_without_a_readable_image_are_named(folder, tmp_path):
    for file in (folder / "ant").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="classes of which no image can be read: ant"):
        read(folder, tmp_path / "run")
