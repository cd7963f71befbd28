import os
from pathlib import Path

import fsspec
import pytest
from torchvision.datasets import ImageFolder

from discl_ray.config import load_config
from discl_ray.data.settle import settled
from discl_ray.errors import ConfigError, DataError
from tests.support.folders import PNG, lay, listed
from tests.support.runs import promptly

ROOT = Path(__file__).resolve().parents[2]


def rows(root, *columns, **config):
    table = listed(root, **config).table
    return list(zip(*(table[c].to_pylist() for c in columns), strict=True))


def test_paths_and_labels_are_torchvisions(tmp_path):
    lay(
        tmp_path,
        "b/2.JPG",
        "b/1.jpeg",
        "B/x.png",
        "a b/3.webp",
        "017/y.bmp",
        "9/z.tiff",
        "10/z.ppm",
        "Ω/a.png",
        "🐈/a.png",
    )
    lay(
        tmp_path,
        "b/deep/er/4.png",
        "b/0deep/5.png",
        "<script>/a.png",
        "c" * 200 + "/a.png",
        "b/notes.txt",
    )
    theirs = ImageFolder(str(tmp_path))
    listing = listed(tmp_path)
    keys = sorted(set(listing.table["class_key"].to_pylist()))
    assert keys == theirs.classes
    ours = {(str(tmp_path / p), keys.index(k)) for p, k in rows(tmp_path, "path", "class_key")}
    assert ours == set(theirs.samples)
    plain = lay(tmp_path / "plain", *(f"{c}/{i}.png" for c in "xyz" for i in range(12)))
    assert [str(plain / p) for (p,) in rows(plain, "path")] == [
        p for p, _ in ImageFolder(str(plain)).samples
    ]


def test_every_column_is_what_a_listing_says(tmp_path):
    lay(tmp_path, "ant/1.png", "bee/in/2.png")
    listing = listed(tmp_path)
    nothing = {"row": None, "split": None, "domain": None, "group": None}
    assert listing.table.to_pylist() == [
        {"sample_id": p, "path": p, "class_key": k, **nothing}
        for p, k in (("ant/1.png", "ant"), ("bee/in/2.png", "bee"))
    ]
    assert list(listing.read(listing.root, listing.table)) == [PNG, PNG]
    assert listing.in_files
    assert listed(f"{tmp_path}/").table.equals(listing.table)


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val", "test"), ("train", "val", "test")),
        (("Train", "VALID"), ("train", "val")),
        (("Training", "Testing"), ("train", "test")),
        (("dev", "train", "validation"), ("val", "train", "val")),
        (("test",), ("test",)),
    ],
)
def test_folders_called_like_splits_are_splits(tmp_path, folders, splits):
    lay(
        tmp_path,
        *(f"{folder}/{c}/{i}.png" for folder in folders for c in ("ant", "bee") for i in range(2)),
        "README.md",
    )
    lay(tmp_path, f"{folders[0]}/cat/deep/1.png", "docs/notes.txt")
    found = {(path.split("/")[0], split) for path, split in rows(tmp_path, "path", "split")}
    assert found == set(zip(folders, splits, strict=True))
    assert {k for (k,) in rows(tmp_path, "class_key")} == {"ant", "bee", "cat"}


def test_a_mix_of_splits_and_classes_is_told(tmp_path):
    lay(tmp_path, "train/a/1.png", "extra/a/1.png", "test/a/1.png")
    with pytest.raises(
        DataError,
        match=(
            r"'test', 'train' are splits and 'extra' are not; needed: root/<class>/<image> or "
            r"root/"
        ),
    ):
        listed(tmp_path)


def test_images_in_no_class_folder_are_named(tmp_path):
    lay(tmp_path, "a/1.png", "loose.png", "b/1.png")
    with pytest.raises(
        DataError,
        match=r"1 image lies in no class folder: 'loose.png'; needed: root/<class>/<image>",
    ):
        listed(tmp_path)
    lay(tmp_path / "split", "train/1.png", "train/a/1.png")
    with pytest.raises(
        DataError, match=r"1 image lies in no class folder: 'train/1.png'.*\(train, training, val"
    ):
        listed(tmp_path / "split")
    lay(tmp_path / "flat", "1.png", "2.png")
    with pytest.raises(DataError, match=r"2 images lie in no class folder: '1.png', '2.png'"):
        listed(tmp_path / "flat")


@pytest.mark.parametrize(
    ("root", "above"), [("photos/otter", "photos"), ("photos/otter/", "photos"), ("photos", r"\.")]
)
def test_one_folder_too_low_is_told_the_folder_above(tmp_path, monkeypatch, root, above):
    lay(tmp_path / root, "1.png", "2.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"is one of the classes, set data\.root={above}$"):
        listed(root)


def test_one_folder_too_high_is_told(tmp_path):
    lay(tmp_path, "archive/ant/1.png", "archive/bee/1.png", "README.md")
    with pytest.raises(DataError, match=r"in 'ant', 'bee'; .* the root is '.*/archive'$"):
        listed(tmp_path)
    assert len(rows(tmp_path / "archive", "path")) == 2


def test_folders_without_images_are_no_classes(tmp_path):
    lay(
        tmp_path,
        "a/1.png",
        "b/1.png",
        "empty/notes.txt",
        "c/.hidden.png",
        ".git/x.png",
        "__MACOSX/a/1.png",
        "a/Thumbs.db",
    )
    (tmp_path / "void").mkdir()
    assert rows(tmp_path, "path") == [("a/1.png",), ("b/1.png",)]


def test_wrong_folders_are_told_at_once(tmp_path):
    (tmp_path / "void").mkdir()
    lay(tmp_path / "docs", *(f"{i}/a.txt" for i in range(9)), "x.pdf")
    with promptly():
        with pytest.raises(
            DataError, match=r"looked for images as root/<class>/<image> .*; the folder is empty"
        ):
            listed(tmp_path / "void")
        with pytest.raises(
            DataError, match=r"found 10 files \(9 .txt, 1 .pdf\) in 0, 1, 2, 3, 4, 5"
        ):
            listed(tmp_path / "docs")
        with pytest.raises(DataError, match="no such folder"):
            listed(tmp_path / "none")


def test_links_inside_are_followed_and_links_outside_are_not(tmp_path):
    lay(tmp_path / "root", "a/1.png", "b/1.png")
    lay(tmp_path / "elsewhere", "1.png")
    (tmp_path / "root" / "c").symlink_to("a")
    assert ("c/1.png", "c") in rows(tmp_path / "root", "path", "class_key")
    (tmp_path / "root" / "d").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "out.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    refused = settled(listed(tmp_path / "root"), links=False)
    assert refused.refused["sample_id"].to_pylist() == ["d", "a/out.png", "c/out.png"]
    assert all(
        "data.allow_links_outside=true" in detail
        for detail in refused.refused["detail"].to_pylist()
    )
    assert set(refused.table["class_key"].to_pylist()) == {"a", "b", "c"}
    assert ("d/1.png", "d") in rows(
        tmp_path / "root", "path", "class_key", allow_links_outside=True
    )


def test_the_stamp_changes_with_the_images_alone(tmp_path):
    lay(tmp_path, "a/1.png", "b/1.png")
    stamp = listed(tmp_path).stamp
    (tmp_path / "a" / "notes.txt").touch()
    assert listed(tmp_path).stamp == stamp
    os.utime(tmp_path / "a" / "1.png", (5, 5))
    assert listed(tmp_path).stamp != stamp


def test_an_image_that_vanished_is_a_row_with_a_reason(tmp_path):
    lay(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "b" / "2.png").symlink_to("nothing")
    listing = listed(tmp_path)
    (tmp_path / "a" / "1.png").unlink()
    missing, there, gone = listing.read(listing.root, listing.table)
    assert (missing.reason, there, gone.reason) == ("missing", PNG, "missing")


def test_a_remote_folder_reads_the_same(tmp_path):
    paths = ("train/b-c/1.png", "train/b/1.png", "test/b/x/2.png")
    local = listed(lay(tmp_path, *paths))
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({f"/folder/{path}": PNG for path in paths})
    try:
        remote = listed("memory://folder")
        assert remote.table.equals(local.table)
        assert list(remote.read(remote.root, remote.table)) == [PNG] * 3
    finally:
        filesystem.rm("/folder", recursive=True)


@pytest.mark.parametrize("name", ["imagefolder", "manifest", "parquet", "huggingface"])
def test_the_configurations_for_own_data_need_only_the_root(tmp_path, name):
    config = load_config(ROOT / "conf" / f"{name}.yaml", [f"data.root={tmp_path}"])
    assert config.data == type(config.data)(root=str(tmp_path))
    assert (config.data.name, config.run.name) == (name, name)
    assert config.prompts.filter == "a photo of a {name}"
    with pytest.raises(ConfigError, match=r"data\.root"):
        load_config(ROOT / "conf" / f"{name}.yaml")


def test_what_is_read_and_what_is_left_out_by_suffix(tmp_path, monkeypatch):
    lay(
        tmp_path,
        "a/1.JFIF",
        "a/2.pjpeg",
        "a/3.apng",
        "a/plain",
        "b/4.j2k",
        "a/x.mp4",
        "a/y.MP4",
        "b/z.tar.gz",
        "c/5.heic",
    )
    (tmp_path / "a" / "LICENSE").write_text("MIT")
    (tmp_path / "void").mkdir()
    monkeypatch.setattr("discl_ray.data.files.can_heic", lambda: False)
    listing = listed(tmp_path)
    assert listing.table["path"].to_pylist() == [
        "a/1.JFIF",
        "a/2.pjpeg",
        "a/3.apng",
        "a/plain",
        "b/4.j2k",
    ]
    said = "\n".join(listing.notes)
    for words in (
        "left out 5 files that are no images: 2 .mp4, 1 .gz, 1 .heic, 1 without suffix",
        "1 HEIC photo can be read after pip install 'discl-ray[heic]'",
        "folders without a readable image are not classes: 'c', 'void'",
    ):
        assert words in said
    monkeypatch.setattr("discl_ray.data.files.can_heic", lambda: True)
    assert "c/5.heic" in listed(tmp_path).table["path"].to_pylist()


SYSTEM = (
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "lost+found",
    ".thumbnails",
    "__MACOSX",
    "System Volume Information",
    "@Recycle",
)


@pytest.mark.parametrize("remote", [False, True])
def test_what_systems_and_nas_make_is_left_out_at_any_depth_and_said(tmp_path, remote):
    paths = [f"{top}{name}/1.jpg/x.jpg" for top in ("", "a/", "a/deep/") for name in SYSTEM]
    paths += ["a/1.png", "a/deep/2.png", "b/3.png", "a/Thumbs.db", "b/._3.png"]
    if remote:
        fsspec.filesystem("memory").pipe({f"/nas{tmp_path.name}/{path}": PNG for path in paths})
    listing = listed(f"memory://nas{tmp_path.name}" if remote else lay(tmp_path, *paths))
    assert listing.table["path"].to_pylist() == ["a/1.png", "a/deep/2.png", "b/3.png"]
    said = "\n".join(listing.notes)
    assert "left out files of systems and NAS: " in said
    assert "3 @eaDir" in said
    assert "4 hidden files and folders: ._3.png, .thumbnails" in said


def test_a_folder_of_links_alone_lists_them_all_as_refused(tmp_path):
    lay(tmp_path / "elsewhere", "a/1.png", "b/2.png")
    (tmp_path / "root").mkdir()
    for name in "ab":
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere" / name)
    listing = listed(tmp_path / "root")
    assert (listing.table.num_rows, listing.refused["sample_id"].to_pylist()) == (0, ["a", "b"])
