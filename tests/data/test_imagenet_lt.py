import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.config import load_config
from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.config import ImageNetLTConfig
from discl_ray.data.imagenet_lt import by_column, by_row, imagenet_lt
from discl_ray.data.settle import settled
from discl_ray.errors import ConfigError, DataError
from tests.support.by_column import agree
from tests.support.runs import promptly

pytestmark = pytest.mark.model  # names come with timm, which imports torch

PNG = encode_image(np.zeros((2, 2, 3), np.uint8), "png")
ROOT = Path(__file__).resolve().parents[2]
TENCH, GOLDFISH, BIRD, MACHINE = "n01440764", "n01443537", "n02012849", "n03126707"
IDS = (TENCH, GOLDFISH, BIRD, MACHINE)
TRAIN = "ImageNet_LT_train.txt"


def lists_of(counts=(5, 3, 2, 1)):
    """The published layout: val is of ImageNet's train folder, test is of its val folder."""
    image, lines = 0, {"train": [], "val": [], "test": []}
    for label, (wnid, count) in enumerate(zip(IDS, counts, strict=True)):
        for split, folder, n in (
            ("train", "train", count),
            ("val", "train", 2),
            ("test", "val", 3),
        ):
            for _ in range(n):
                image += 1
                name = f"{wnid}_{image}" if folder == "train" else f"ILSVRC2012_val_{image:08d}"
                lines[split].append(f"{folder}/{wnid}/{name}.JPEG {label}")
    return lines


def lay(root, lines=None, *, lists=".", flat=False, images=True):
    lines = lines or lists_of()
    (root / lists).mkdir(parents=True, exist_ok=True)
    for split, found in lines.items():
        (root / lists / f"ImageNet_LT_{split}.txt").write_text("\n".join(found) + "\n")
        for line in found if images else ():
            path = root / line.split()[0]
            if flat and split == "test":
                path = path.parents[1] / path.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PNG)
    return root


def listed(root, **config):
    return imagenet_lt(ImageNetLTConfig(root=str(root), **config), 0)


def refused(root, **config):
    with pytest.raises(DataError) as error:
        listed(root, **config)
    return str(error.value)


def test_splits_labels_and_classes_are_those_of_the_lists(tmp_path):
    lines = lists_of()
    listing = listed(lay(tmp_path, lines))
    assert listing.classes == list(IDS)
    rows = listing.table.to_pylist()
    expected = [
        {
            "sample_id": line.split()[0],
            "path": line.split()[0],
            "row": None,
            "class_key": IDS[int(line.split()[1])],
            "split": split,
            "domain": None,
            "group": None,
        }
        for split in ("train", "val", "test")
        for line in lines[split]
    ]
    assert rows == expected
    assert list(listing.read(listing.root, listing.table)) == [PNG] * 31
    assert listing.in_files


def test_labels_are_those_of_the_lists_and_not_the_sorted_ids(tmp_path):
    order = {0: 2, 1: 0, 2: 3, 3: 1}
    lines = {
        split: [f"{line[:-1]}{order[int(line[-1])]}" for line in found]
        for split, found in reversed(lists_of().items())
    }
    assert listed(lay(tmp_path, lines)).classes == [GOLDFISH, MACHINE, TENCH, BIRD]


def test_test_images_need_no_class_folders_on_disk(tmp_path):
    nested, flat = listed(lay(tmp_path / "nested")), listed(lay(tmp_path / "flat", flat=True))
    assert flat.table.drop(["path"]).equals(nested.table.drop(["path"]))
    test = [row["path"] for row in flat.table.to_pylist() if row["split"] == "test"]
    assert all(path.startswith("val/ILSVRC2012_val_") for path in test)
    assert set(flat.read(flat.root, flat.table)) == {PNG}


def test_test_images_need_no_class_folders_in_the_list(tmp_path):
    lines = lists_of()
    lines["test"] = [f"val/{line.rsplit('/', 1)[1]}" for line in lines["test"]]
    rows = listed(lay(tmp_path, lines)).table.to_pylist()
    assert [row["class_key"] for row in rows if row["split"] == "test"] == [
        wnid for wnid in IDS for _ in range(3)
    ]


def test_lists_may_lie_in_a_folder(tmp_path):
    lay(tmp_path, lists="lists/lt")
    assert listed(tmp_path, lists="lists/lt").table.num_rows == 31
    assert "no 'ImageNet_LT_train.txt'" in refused(tmp_path)
    assert "leaves data.root" in refused(tmp_path, lists="../x")


def test_it_reads_from_object_stores(tmp_path):
    lay(tmp_path)
    memory = Store.at("memory://imagenet-lt")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            with memory.filesystem.open_output_stream(
                memory.path(path.relative_to(tmp_path).as_posix())
            ) as stream:
                stream.write(path.read_bytes())
    theirs, ours = listed("memory://imagenet-lt"), listed(tmp_path)
    assert theirs.table.equals(ours.table)
    assert set(theirs.read(theirs.root, theirs.table)) == {PNG}
    with pytest.raises(DataError, match=r"ImageNet_LT_\{train,val,test\}\.txt"):
        listed("memory://imagenet-lt/train")


def test_names_are_wordnets_or_those_of_a_list(tmp_path):
    lay(tmp_path)
    names = listed(tmp_path).names
    assert names[TENCH] == "tench"
    assert names[BIRD].startswith("crane (large")
    assert names[MACHINE] == "crane (lifts and moves heavy objects)"
    (tmp_path / "LOC_synset_mapping.txt").write_text(
        f"{TENCH} tench, Tinca tinca\n{GOLDFISH} gold fish\n{BIRD} crane\n{MACHINE} crane\n"
        "n00000001 no class of this set\n"
    )
    assert listed(tmp_path).names == {**names, GOLDFISH: "gold fish"}
    (tmp_path / "classnames.txt").write_text(
        f"{TENCH} a\r\n{GOLDFISH} b\n\n{BIRD} crane bird\n{MACHINE} construction crane\n"
    )
    assert listed(tmp_path).names == dict(
        zip(IDS, ("a", "b", "crane bird", "construction crane"), strict=True)
    )
    (tmp_path / "classnames.txt").write_text(f"{TENCH} a\n{GOLDFISH}\n")
    assert refused(tmp_path) == (
        f"classnames.txt: cannot be used as it is:\n  line 2: '{GOLDFISH}' has no name; "
        "a line reads: n01440764 tench"
    )


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("train/n01440764/x.JPEG", "is not a path and a label"),
        ("0", "is not a path and a label"),
        ("train/n01440764/x.JPEG zero", "is not a path and a label"),
        ("train/n01440764/x.JPEG -1", "is not a path and a label"),
        ("train/n01440764/x.JPEG 0.0", "is not a path and a label"),
        ("train/n01440764/x.JPEG " + "9" * 5000, "is not a path and a label"),
        ("train/n01440764/x.JPEG ٣", "is not a path and a label"),
        ("x" + " " * 100_000 + "x", "is not a path and a label"),
        (
            "train/n01440764/x.JPEG 1",
            "label 1 is n01440764 here and n01443537 in ImageNet_LT_train.txt line 6",
        ),
        (
            "train/n01440764/x.JPEG 4",
            "n01440764 has label 4 here and 0 in ImageNet_LT_train.txt line 1",
        ),
        ("train/n01440764/n01440764_1.JPEG 0", "is already in ImageNet_LT_train.txt line 1"),
        ("../n01440764/x.JPEG 0", "leaves data.root"),
        ("/etc/passwd 0", "is absolute and not under data.root"),
        ("s3://bucket/n01440764/x.JPEG 0", "is a URI"),
        ("train/n01440764/x\0.JPEG 0", "NUL"),
    ],
)
def test_a_line_that_cannot_be_is_named(tmp_path, line, rule):
    lines = lists_of()
    lay(tmp_path, lines)
    (tmp_path / TRAIN).write_text("\n".join([*lines["train"], line]) + "\n")
    with promptly():
        message = refused(tmp_path)
        assert message.startswith(f"{TRAIN}: ")
        assert "line 12: " in message
        assert rule in message
    assert len(message) < 1000


def test_the_second_list_may_not_contradict_the_first(tmp_path):
    lines = lists_of()
    lines["test"][4] = f"val/{TENCH}/other.JPEG 1"
    message = refused(lay(tmp_path, lines))
    assert message.startswith("ImageNet_LT_test.txt: ")
    assert (
        f"line 5: label 1 is {TENCH} here and {GOLDFISH} in ImageNet_LT_train.txt line 6" in message
    )


def test_what_one_image_is_in_two_splits_is_told(tmp_path):
    lines = lists_of()
    lines["val"][0] = lines["train"][0]
    assert "is already in ImageNet_LT_train.txt line 1" in refused(lay(tmp_path, lines))


def test_labels_have_no_gaps_and_all_have_an_id(tmp_path):
    lines = {
        split: [line.replace("EG 3", "EG 7") for line in found]
        for split, found in lists_of().items()
    }
    assert "no line has label 3" in refused(lay(tmp_path, lines))
    lines = lists_of()
    lines["test"].append("val/ILSVRC2012_val_00000099.JPEG 4")
    assert "ImageNet_LT_test.txt line 13: no line with label 4 has a WordNet id" in refused(
        lay(tmp_path, lines)
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\xff\xfe1\0", "is not UTF-8 (UTF-16)"),
    ],
)
def test_a_broken_list_is_told(tmp_path, text, why):
    lay(tmp_path)
    (tmp_path / "ImageNet_LT_val.txt").write_bytes(text)
    message = refused(tmp_path)
    assert "ImageNet_LT_val.txt" in message
    assert why in message


def test_lists_from_windows_are_read(tmp_path):
    lay(tmp_path)
    before = listed(tmp_path).table
    path = tmp_path / TRAIN
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert listed(tmp_path).table.equals(before)


def test_a_wrong_folder_is_told_at_once(tmp_path):
    with promptly():
        assert "the folder is empty" in refused(tmp_path)
        for i in range(3):
            (tmp_path / f"{i}.csv").write_text("")
        message = refused(tmp_path)
        assert "looked for ImageNet_LT_{train,val,test}.txt" in message
        assert "found 3 files (3 .csv)" in message
        assert "no such folder" in refused(tmp_path / "nowhere")


def test_lists_without_their_images_are_told(tmp_path):
    lay(tmp_path / "a", images=False)
    message = refused(tmp_path / "a")
    assert (
        "the images of ImageNet_LT_train.txt; there is none of its 4 folders, such as "
        "'train/n01440764'" in message
    )
    lay(tmp_path / "b")
    (tmp_path / "b" / "val").rename(tmp_path / "b" / "validation")
    assert "the images of ImageNet_LT_test.txt" in refused(tmp_path / "b")


def test_one_missing_image_is_a_row_all_the_same(tmp_path):
    lay(tmp_path)
    next((tmp_path / "train" / TENCH).iterdir()).unlink()
    listing = listed(tmp_path)
    assert listing.table.num_rows == 31
    assert [str(item) for item in listing.read(listing.root, listing.table) if item != PNG] == [
        "missing: no such file"
    ]


def test_links_out_of_the_root_are_followed_only_if_allowed(tmp_path):
    lay(tmp_path / "elsewhere")
    root = tmp_path / "root"
    root.mkdir()
    for name in ("val", *(p.name for p in (tmp_path / "elsewhere").glob("*.txt"))):
        (tmp_path / "elsewhere" / name).rename(root / name)
    (root / "train").symlink_to(tmp_path / "elsewhere" / "train")
    kept = settled(listed(root), links=False)
    assert (
        kept.table.num_rows + kept.refused.num_rows,
        kept.refused["reason"].unique().to_pylist(),
    ) == (31, ["refused"])
    assert listed(root, allow_links_outside=True).table.num_rows == 31


@pytest.mark.parametrize("name", ["ImageNet_LT_val.txt", "classnames.txt"])
def test_a_list_that_is_a_link_out_of_the_root_is_refused(tmp_path, name):
    root = lay(tmp_path / "root")
    (root / name).unlink(missing_ok=True)
    (tmp_path / name).write_text("".join(f"{line}\n" for line in lists_of()["val"]))
    (root / name).symlink_to(tmp_path / name)
    assert (
        refused(root)
        == f"'{name}' is a symbolic link out of data.root; data.allow_links_outside=true follows it"
    )
    assert listed(root, allow_links_outside=True).table.num_rows


def test_links_out_of_a_flat_folder_are_refused_too(tmp_path):
    lay(tmp_path, flat=True)
    image = next((tmp_path / "val").iterdir())
    image.unlink()
    image.symlink_to("/etc/passwd")
    kept = settled(listed(tmp_path), links=False)
    assert (kept.table.num_rows, kept.refused.num_rows) == (30, 1)
    assert "is a symbolic link out of data.root" in kept.refused["detail"][0].as_py()


def test_pipes_are_refused_and_not_waited_for(tmp_path):
    lay(tmp_path)
    (tmp_path / TRAIN).unlink()
    os.mkfifo(tmp_path / TRAIN)
    assert "is a pipe" in refused(tmp_path)


def test_the_stamp_follows_lists_and_folders_and_not_the_place(tmp_path):
    lay(tmp_path / "a")
    stamp = listed(tmp_path / "a").stamp
    assert listed(tmp_path / "a").stamp == stamp
    (tmp_path / "a").rename(tmp_path / "b")
    assert listed(tmp_path / "b").stamp == stamp
    os.utime(tmp_path / "b" / "train" / TENCH, (1, 1))
    touched = listed(tmp_path / "b").stamp
    assert touched != stamp
    path = tmp_path / "b" / TRAIN
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert listed(tmp_path / "b").stamp not in (stamp, touched)


@pytest.mark.parametrize("over", [(), ("conf/sdxl-refiner.yaml",)])
def test_the_configuration_wants_only_the_root(over):
    files = [ROOT / "conf" / "imagenet_lt.yaml", *(ROOT / name for name in over)]
    with pytest.raises(ConfigError, match=r"1 problem in the configuration\n  data\.root"):
        load_config(files)
    config = load_config(files, ["data.root=/somewhere"])
    assert config.plan.levels == (0, 10, 30, 50)
    assert (config.plan.replicas, config.hard.rule, config.hard.below) == (8, "class_count", 20)
    assert (config.data.few_below, config.data.many_above, config.filter.threshold) == (
        20,
        100,
        0.30,
    )


ODD_LINES = [
    *("", " ", "0", "train/x.JPEG", "train/x.JPEG -1", "train/x.JPEG 0000001", "../x.JPEG 0"),
    *("train/x.JPEG \u0663", "train/x.JPEG  0", "train/x y.JPEG 00", "\ttrain/x.JPEG 1\r"),
    *("./train/n01440764/0.JPEG 0", "train/n01440764/0.JPEG 1", "train/caf\u00e9.JPEG 0"),
    *("train/n\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668/0.JPEG 2", "x/ 0", "a\0 0"),
]


@given(data=st.data(), careful=st.booleans())
def test_lists_by_column_are_what_they_are_by_row(tmp_path_factory, data, careful):
    root = Store.at(tmp_path_factory.getbasetemp())
    ids = data.draw(st.permutations(IDS))
    most = data.draw(st.integers(0, 3))
    texts, number = {}, 0
    for name in ("train", "val", "test"):
        lines = []
        for label in data.draw(st.lists(st.integers(0, most), max_size=5)):
            number += 1
            folder = data.draw(st.sampled_from([f"train/{ids[label]}/", "val/"]))
            lines.append(f"{folder}{number}.JPEG {label}")
        if not careful:
            at = data.draw(st.integers(0, len(lines)))
            lines.insert(at, data.draw(st.sampled_from(ODD_LINES)))
        texts[name] = data.draw(st.sampled_from(["\n", "\r\n"])).join(lines)
    assert agree(lambda: by_column(root, texts), lambda: by_row(root, texts))
