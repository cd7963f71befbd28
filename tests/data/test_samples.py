import shutil

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from discl_ray.cluster import map_blocks as parallel
from discl_ray.core.ids import stable_id
from discl_ray.core.images import decode_image, encode_image
from discl_ray.core.schema import SAMPLES
from discl_ray.core.sources import image_bytes, image_pixels
from discl_ray.core.storage import Store, reference
from discl_ray.data import samples as module
from discl_ray.data.config import AnyDataConfig
from discl_ray.data.listing import inline
from discl_ray.data.samples import CONTENT, read_samples, references
from discl_ray.data.summary import summarize_samples
from tests.support.samples import picture, read, whole


def test_every_image_is_in_one_split_or_among_the_rejects_with_a_reason(folder, tmp_path):
    (folder / "ant" / "03.png").write_bytes(b"no image")
    (folder / "bee" / "04.png").write_bytes((folder / "bee" / "04.png").read_bytes()[:200])
    samples = read(folder, tmp_path / "run")
    ids = samples.table["sample_id"].to_pylist() + samples.rejects["sample_id"].to_pylist()
    assert sorted(ids) == sorted(f"{c}/{i:02d}.png" for c in ("ant", "bee") for i in range(20))
    broken = dict(
        zip(
            samples.rejects["sample_id"].to_pylist(),
            samples.rejects["reason"].to_pylist(),
            strict=True,
        )
    )
    assert broken == {"ant/03.png": "not_an_image", "bee/04.png": "truncated"}
    words = summarize_samples(samples)
    assert "ant/03.png: not_an_image" in words
    assert "bee/04.png: truncated" in words
    row = samples.table.filter(pc.equal(samples.table["sample_id"], "bee/01.png")).to_pylist()[0]
    assert (row["label"], row["class_name"]) == (1, "bee")
    height, width, _ = decode_image(image_bytes(row["image"])).shape
    assert (row["width"], row["height"]) == (width, height)
    assert row["image"]["path"] == str(folder / "bee" / "01.png")


def test_what_was_read_is_not_read_again_until_a_file_changes(folder, tmp_path, monkeypatch):
    first = read(folder, tmp_path / "run")
    monkeypatch.setattr(module, "scan", lambda *_: pytest.fail("read again"))
    again = read(folder, tmp_path / "run")
    assert again.table.equals(first.table)
    assert again.fingerprint == first.fingerprint
    monkeypatch.undo()
    (folder / "ant" / "00.png").write_bytes(encode_image(picture(7), "png"))
    changed = read(folder, tmp_path / "run")
    assert changed.store.base != first.store.base
    assert changed.fingerprint != first.fingerprint


def test_moving_the_data_changes_its_place_and_nothing_else(folder, tmp_path):
    first = read(folder, tmp_path / "run")
    shutil.move(folder, tmp_path / "elsewhere")
    moved = read(tmp_path / "elsewhere", tmp_path / "run")
    assert moved.fingerprint == first.fingerprint
    assert moved.table["image"].to_pylist() != first.table["image"].to_pylist()


def test_images_that_are_no_files_keep_their_bytes_on_disk_and_are_fetched_when_asked_for(tmp_path):
    rows = [
        {
            "sample_id": f"s{i}",
            "class_key": "xyz"[i % 3],
            "split": ("train", "val", "test")[i % 3],
            "bytes": encode_image(picture(i), "png"),
        }
        for i in range(30)
    ]
    samples = read_samples(
        AnyDataConfig(), inline(rows, Store.at("."), "zyx"), seed=0, run=Store.at(tmp_path)
    )
    assert samples.classes == ("z", "y", "x")
    assert all(i["bytes"] is None for i in samples.table["image"].to_pylist())
    picked = samples.table.take(pa.array([17, 3, 4]))
    full = samples.with_images(picked)
    assert full.schema.equals(SAMPLES)
    assert full["sample_id"].equals(picked["sample_id"])
    made = {row["sample_id"]: row["bytes"] for row in rows}
    assert [i["bytes"] for i in full["image"].to_pylist()] == [
        made[s] for s in full["sample_id"].to_pylist()
    ]


def test_ray_reads_what_one_process_reads(folder, tmp_path, ray_local, monkeypatch):
    (folder / "ant" / "03.png").write_bytes(b"no image")
    here = read(folder, tmp_path / "here")
    monkeypatch.setattr(parallel, "SMALL", 0)
    monkeypatch.setattr(module, "PART", 7)
    monkeypatch.setattr(module, "PATHS", 5)
    by_ray = read(folder, tmp_path / "by ray")
    assert by_ray.fingerprint == here.fingerprint
    assert by_ray.table.sort_by("sample_id").equals(here.table.sort_by("sample_id"))
    assert by_ray.rejects.equals(here.rejects)
    assert len(by_ray.store.list("train", ".parquet")) > 1


def test_a_large_image_is_read_where_it_is_allowed_and_named_where_not(folder, tmp_path):
    Image.new("L", (9_000, 6_000)).save(folder / "ant" / "scan.png")
    samples = whole(folder, tmp_path / "run")
    assert (
        "ant/scan.png: too_large: 54.0 megapixels, at most 50 are read; data.max_megapixels=54 "
        "reads it" in summarize_samples(samples)
    )
    allowed = whole(folder, tmp_path / "run", max_megapixels=54)
    row = allowed.table.filter(pc.equal(allowed.table["sample_id"], "ant/scan.png")).to_pylist()[0]
    assert (row["width"], row["height"]) == (4_500, 3_000)
    assert image_pixels(row["image"]).shape == (3_000, 4_500, 3)


@pytest.mark.parametrize("form", ["file://{}", "{}"])
def test_images_under_a_uri_are_read_again_whatever_their_folders_are_called(tmp_path, form):
    root = tmp_path / "Photos #2 50% é"
    for c, name in enumerate(("C#", "why?", "100%", "%20", "a=b&c", "red fox")):
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(picture(10 * c + i)).save(root / name / f"{i}?.png")
    samples = whole(form.format(root), tmp_path / "run")
    for row in samples.table.to_pylist():
        assert image_pixels(row["image"]).shape[:2] == (row["height"], row["width"])
    fsspec.filesystem("memory").put(str(root), f"/bucket{tmp_path.name}", recursive=True)
    remote = whole(f"memory://bucket{tmp_path.name}", tmp_path / "remote")
    assert remote.fingerprint == samples.fingerprint
    assert all(image_pixels(row["image"]).any() for row in remote.table.to_pylist())


def test_references_are_what_each_is_alone_escapes_included():
    names = ["a/b.png", "a b/c.png", "50%.png", "é?.png", "x/y-z_~.png"]
    for location in ("/data/x/", "s3://bucket/x?region=eu-1", "s3://bucket", "memory://b/x"):
        found = references(location, pa.chunked_array([names[:1], names[1:]]))
        assert found.to_pylist() == [reference(location, name) for name in names]


def test_the_fingerprint_is_the_id_of_the_content_by_sample(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "JSON_ROWS", 7)
    samples = read(folder, tmp_path / "run")
    rows = samples.table.sort_by("sample_id")
    assert samples.fingerprint == stable_id({name: rows[name].to_pylist() for name in CONTENT})
