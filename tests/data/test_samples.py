import shutil

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from discl_ray.cluster import map_blocks as parallel
from discl_ray.core.images import decode_image, encode_image
from discl_ray.core.schema import SAMPLES
from discl_ray.core.sources import image_bytes, image_pixels
from discl_ray.core.storage import Store
from discl_ray.data import list_dataset
from discl_ray.data import samples as module
from discl_ray.data.config import AnyDataConfig, ImageFolderConfig, LongTail
from discl_ray.data.files import stamp_of, walk
from discl_ray.data.listing import Listing, inline, listing_table, read_files
from discl_ray.data.root import open_root
from discl_ray.data.samples import read_samples
from discl_ray.data.summary import summarize_samples
from discl_ray.errors import DataError


def picture(seed: int, side: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side + seed % 3, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for c, name in enumerate(("ant", "bee")):
        (root / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(picture(100 * c + i)).save(root / name / f"{i:02d}.png")
    return root


def listed(root, **overrides) -> Listing:
    store = open_root(str(root))
    files = list(walk(store))
    rows = ({"sample_id": f.path, "path": f.path, "class_key": f.path.split("/")[0]} for f in files)
    return Listing(
        table=listing_table(rows), root=store, read=read_files, stamp=stamp_of(files), **overrides
    )


def read(root, run, seed=0, **config):
    settings = ImageFolderConfig.model_validate(
        {"root": str(root), "max_bad_fraction": 0.2, **config}
    )
    return read_samples(settings, listed(root), seed=seed, run=Store.at(run))


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


def test_too_many_broken_images_end_the_job_by_name(folder, tmp_path):
    for i in range(10):
        (folder / "ant" / f"{i:02d}.png").write_bytes(b"")
    with pytest.raises(
        DataError,
        match=r"10 of 40 images cannot be used(?s:.)*ant/00\.png: not_an_image(?s:.)*rejects(?s:.)*max_bad_fraction",
    ):
        read(folder, tmp_path / "run")
    (list_,) = (tmp_path / "run").rglob("*.*")
    rejects = Store.at(list_.parent).read_table("rejects.parquet")
    assert rejects["sample_id"].to_pylist() == [f"ant/{i:02d}.png" for i in range(10)]


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


def test_the_same_bytes_are_in_one_split(folder, tmp_path):
    for i in range(6):
        shutil.copy(folder / "ant" / "00.png", folder / "ant" / f"copy{i}.png")
    drawn = read(folder, tmp_path / "run").table
    same = drawn.filter(
        pc.equal(
            drawn["sha256"], drawn["sha256"][drawn["sample_id"].to_pylist().index("ant/00.png")]
        )
    )
    assert same.num_rows == 7
    assert len(set(same["split"].to_pylist())) == 1


@pytest.mark.parametrize(
    ("policy", "left"), [("exclude", ["val", "test"]), ("keep", ["train", "train", "val", "test"])]
)
def test_training_images_that_are_in_val_or_test_are_left_out_and_reported(tmp_path, policy, left):
    data = [encode_image(picture(i), "png") for i in range(4)]
    rows = [
        ("a", "train", 0),
        ("b", "train", 1),
        ("c", "val", 0),
        ("d", "test", 1),
        ("e", "train", 2),
        ("f", "train", 3),
    ]
    table = [
        {"sample_id": s, "split": split, "class_key": "xy"[i % 2], "bytes": data[i]}
        for s, split, i in rows
    ]
    config = ImageFolderConfig(root=".", cross_split_duplicates=policy)
    samples = read_samples(config, inline(table, Store.at(".")), seed=0, run=Store.at(tmp_path))
    splits = dict(
        zip(samples.table["sample_id"].to_pylist(), samples.table["split"].to_pylist(), strict=True)
    )
    assert [splits[s] for s in "abcd" if s in splits] == left
    if policy == "exclude":
        assert dict(
            zip(
                samples.rejects["sample_id"].to_pylist(),
                samples.rejects["reason"].to_pylist(),
                strict=True,
            )
        ) == {"a": "also_in_val", "b": "also_in_test"}
        assert "2 images left out because the same bytes are in another split" in summarize_samples(
            samples
        )


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
    by_ray = read(folder, tmp_path / "by ray")
    assert by_ray.fingerprint == here.fingerprint
    assert by_ray.table.sort_by("sample_id").equals(here.table.sort_by("sample_id"))
    assert by_ray.rejects.equals(here.rejects)
    assert len(by_ray.store.list("train", ".parquet")) > 1


def test_a_long_tail_is_cut_from_train_alone(folder, tmp_path):
    samples = read(folder, tmp_path / "run", long_tail=LongTail(imbalance=4))
    train = samples.table.filter(pc.equal(samples.table["split"], "train"))[
        "class_name"
    ].to_pylist()
    assert (train.count("ant"), train.count("bee")) == (14, 3)
    assert samples.rejects.num_rows == 0


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


def whole(root, run, **config):
    settings = ImageFolderConfig.model_validate({"root": str(root), **config})
    return read_samples(settings, list_dataset(settings, 0), seed=0, run=Store.at(run))


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
        "wasp: refused: is a symbolic link out of data.root; data.allow_links_outside=true follows it"
        in summarize_samples(samples)
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


def test_a_large_image_is_read_where_it_is_allowed_and_named_where_not(folder, tmp_path):
    Image.new("L", (9_000, 6_000)).save(folder / "ant" / "scan.png")
    samples = whole(folder, tmp_path / "run")
    assert (
        "ant/scan.png: too_large: 54.0 megapixels, at most 50 are read; data.max_megapixels=54 reads it"
        in summarize_samples(samples)
    )
    allowed = whole(folder, tmp_path / "run", max_megapixels=54)
    row = allowed.table.filter(pc.equal(allowed.table["sample_id"], "ant/scan.png")).to_pylist()[0]
    assert (row["width"], row["height"]) == (4_500, 3_000)
    assert image_pixels(row["image"]).shape == (3_000, 4_500, 3)


def test_no_val_and_no_test_image_are_said_with_what_mends_it(folder, tmp_path):
    samples = whole(folder, tmp_path / "run", val_fraction=0, test_fraction=0)
    words = summarize_samples(samples)
    assert "no val image to tune on: raise data.val_fraction" in words
    assert "no test image to judge by: raise data.test_fraction" in words


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
