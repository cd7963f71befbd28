import json
import os

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from discl_ray.core.images import decode_image
from discl_ray.data.config import HuggingFaceConfig
from discl_ray.data.huggingface import huggingface
from discl_ray.errors import DataError, ImageError
from tests.support.runs import promptly

FEATURES = datasets.Features(
    image=datasets.Image(),
    label=datasets.ClassLabel(names=["zebra", "ant", "0123"]),
    site=datasets.Value("string"),
)

datasets.disable_progress_bars()


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8))


def made(count, start=0, features=FEATURES, **columns):
    values = {
        "image": [picture(start + i) for i in range(count)],
        "label": [(start + i) % 3 for i in range(count)],
        "site": [f"site {i // 2}" for i in range(count)],
        **columns,
    }
    return datasets.Dataset.from_dict({name: values[name] for name in features}, features=features)


def listed(root, **config):
    return huggingface(HuggingFaceConfig(root=str(root), **config), 0)


def same(listing, *splits):
    """Whether a listing holds exactly the rows of data sets that `datasets` opened.

    These are pairs of (our split, theirs).
    """
    theirs = [
        (split, one.features["label"].int2str(row["label"]), np.asarray(row["image"]))
        for split, one in splits
        for row in one
    ]
    assert listing.table["split"].to_pylist() == [split for split, _, _ in theirs]
    assert listing.table["class_key"].to_pylist() == [key for _, key, _ in theirs]
    images = list(listing.read(listing.root, listing.table))
    for ours, (_, _, pixels) in zip(images, theirs, strict=True):
        np.testing.assert_array_equal(decode_image(ours), pixels)
    return True


def test_a_saved_dict_is_what_datasets_loads(tmp_path):
    saved = datasets.DatasetDict(train=made(10), validation=made(3, 20), test=made(4, 30))
    saved.save_to_disk(tmp_path, num_shards={"train": 3, "validation": 1, "test": 2})
    listing, theirs = listed(tmp_path), datasets.load_from_disk(str(tmp_path))
    assert same(
        listing, ("train", theirs["train"]), ("val", theirs["validation"]), ("test", theirs["test"])
    )
    assert listing.classes == ["zebra", "ant", "0123"]
    assert listing.table["sample_id"].to_pylist()[3:5] == [
        "train/data-00000-of-00003.arrow#3",
        "train/data-00001-of-00003.arrow#0",
    ]
    assert listing.table["group"].null_count == 17
    assert not listing.in_files


def test_a_saved_single_set_is_open_or_of_its_split(tmp_path):
    made(7).save_to_disk(tmp_path / "one", num_shards=2)
    assert same(listed(tmp_path / "one"), (None, datasets.load_from_disk(str(tmp_path / "one"))))
    state = json.loads((tmp_path / "one" / "state.json").read_text())
    (tmp_path / "one" / "state.json").write_text(json.dumps({**state, "_split": "validation"}))
    assert set(listed(tmp_path / "one").table["split"].to_pylist()) == {"val"}


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_file_that_is_a_link_out_of_the_root_is_refused(tmp_path, name):
    made(2).save_to_disk(tmp_path / "root")
    (tmp_path / "root" / name).rename(tmp_path / name)
    (tmp_path / "root" / name).symlink_to(tmp_path / name)
    with pytest.raises(
        DataError,
        match=r"is a symbolic link out of data\.root; data\.allow_links_outside=true follows it$",
    ):
        listed(tmp_path / "root")
    assert listed(tmp_path / "root", allow_links_outside=True).table.num_rows == 2


def test_rows_chosen_and_shuffled_before_saving_are_those(tmp_path):
    made(12).shuffle(seed=1).select(range(5)).save_to_disk(tmp_path)
    assert same(listed(tmp_path), (None, datasets.load_from_disk(str(tmp_path))))


def test_a_repository_of_parquet_is_what_datasets_loads(tmp_path):
    parts = {
        "train-00000-of-00002": made(5),
        "train-00001-of-00002": made(4, 5),
        "validation-00000-of-00001": made(2, 30),
    }
    (tmp_path / "data").mkdir()
    for name, part in parts.items():
        part.to_parquet(tmp_path / "data" / f"{name}.parquet", batch_size=2)
    (tmp_path / "README.md").write_text("---\n")
    listing = listed(tmp_path, group="site")
    files = {
        s: sorted(str(p) for p in (tmp_path / "data").glob(f"{s}-*"))
        for s in ("train", "validation")
    }
    theirs = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert same(listing, ("train", theirs["train"]), ("val", theirs["validation"]))
    assert listing.classes == ["zebra", "ant", "0123"]
    assert listing.table["group"].to_pylist() == [row["site"] for s in theirs.values() for row in s]


def test_an_imagefolder_saved_by_datasets(tmp_path):
    for c in ("bee", "ant"):
        (tmp_path / "images" / c).mkdir(parents=True)
        for i in range(3):
            picture(i).save(tmp_path / "images" / c / f"{i}.png")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "images"), cache_dir=str(tmp_path / "cache")
    )
    loaded.save_to_disk(tmp_path / "saved")
    (tmp_path / "images").rename(tmp_path / "elsewhere")  # what was saved holds the bytes
    listing = listed(tmp_path / "saved")
    assert same(listing, ("train", datasets.load_from_disk(str(tmp_path / "saved"))["train"]))
    assert listing.classes == ["ant", "bee"]


def test_rows_may_be_read_in_any_order(tmp_path):
    made(25).save_to_disk(tmp_path, num_shards=2)
    listing = listed(tmp_path)
    images = list(listing.read(listing.root, listing.table))
    wanted = [20, 3, 4, 4, 24, 0]
    assert list(listing.read(listing.root, listing.table.take(wanted))) == [
        images[i] for i in wanted
    ]


def test_columns_by_other_names(tmp_path):
    image, kind = datasets.Image(), datasets.ClassLabel(names=["a", "b"])
    features = datasets.Features(
        photo=image, mask=image, species=kind, sex=kind, label=datasets.Value("string")
    )
    values = {
        "photo": [picture(1)],
        "mask": [picture(2)],
        "species": [1],
        "sex": [0],
        "label": ["x"],
    }
    made(1, features=features, **values).save_to_disk(tmp_path)
    with pytest.raises(
        DataError, match=r"2 columns are images: photo, mask; choose with data\.image"
    ):
        listed(tmp_path)
    listing = listed(tmp_path, image="mask")
    assert (listing.table["class_key"].to_pylist(), listing.classes) == (["x"], None)
    np.testing.assert_array_equal(
        decode_image(next(listing.read(listing.root, listing.table))), np.asarray(picture(2))
    )
    assert listed(tmp_path, image="photo", label="species").table["class_key"].to_pylist() == ["b"]
    for wrong in (
        {"image": "foto"},
        {"image": "photo", "group": "site"},
        {"image": "photo", "label": "kind"},
    ):
        with pytest.raises(
            DataError,
            match=r"no column .*say which is which with data\.image, data\.label and data\.group",
        ):
            listed(tmp_path, **wrong)
    with pytest.raises(DataError, match="image column 'sex' is of type int64"):
        listed(tmp_path, image="sex")


def test_labels_that_are_plain_numbers(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    made(4, features=features, label=[10, 9, 9, 1]).save_to_disk(tmp_path)
    listing = listed(tmp_path)
    assert (listing.table["class_key"].to_pylist(), listing.classes) == (
        ["10", "9", "9", "1"],
        ["1", "9", "10"],
    )


def test_a_repository_without_features(tmp_path):
    pq.write_table(
        pa.table({"picture": [b"x", b"y"], "label": ["b", "a"], "path": ["p", "q"]}),
        tmp_path / "train.parquet",
    )
    listing = listed(tmp_path)
    assert list(listing.read(listing.root, listing.table)) == [b"x", b"y"]
    assert listing.table["class_key"].to_pylist() == ["b", "a"]


def test_a_split_without_labels_is_left_out(tmp_path):
    blank = made(3, label=[-1, -1, -1])
    datasets.DatasetDict(train=made(6), test=blank).save_to_disk(tmp_path / "dict")
    assert set(listed(tmp_path / "dict").table["split"].to_pylist()) == {"train"}
    made(3, label=[0, -1, 1]).save_to_disk(tmp_path / "some")
    with pytest.raises(DataError, match=r"'data-00000-of-00001\.arrow#1' has no label, but others"):
        listed(tmp_path / "some")


def test_splits_called_otherwise(tmp_path):
    datasets.DatasetDict(train=made(3), holdout=made(3)).save_to_disk(tmp_path / "mixed")
    with pytest.raises(DataError, match="split 'holdout' is none of train, validation and test"):
        listed(tmp_path / "mixed")
    datasets.DatasetDict(all=made(3)).save_to_disk(tmp_path / "all")
    assert listed(tmp_path / "all").table["split"].to_pylist() == [None] * 3


def test_two_data_sets_in_one_folder(tmp_path):
    other = datasets.Features({**FEATURES, "label": datasets.ClassLabel(names=["x", "y", "z"])})
    made(3).to_parquet(tmp_path / "a.parquet")
    made(3, features=other).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        DataError, match=r"a\.parquet and b\.parquet name the labels of column 'label' differently"
    ):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dataset_dict.json", "{", r"dataset_dict\.json: cannot be read as JSON"),
        ("dataset_dict.json", b"\xff\xfe", r"dataset_dict\.json: cannot be read as JSON"),
        ("dataset_dict.json", "[" * 100_000, r"dataset_dict\.json: cannot be read as JSON"),
        ("dataset_dict.json", "[]", "is not a JSON object"),
        ("dataset_dict.json", '{"splits": "train"}', "'splits' is not a list of names"),
        ("dataset_dict.json", '{"splits": []}', "'splits' is not a list of names"),
        ("dataset_dict.json", '{"splits": ["train", "test"]}', r"test/state\.json: no such file"),
        (
            "dataset_dict.json",
            '{"splits": ["../train"]}',
            r"'\.\./train/state\.json' leaves data\.root",
        ),
        ("train/state.json", "{}", r"train/state\.json: '_data_files' is not a list of file names"),
        (
            "train/state.json",
            '{"_data_files": [{"filename": 5}]}',
            "'_data_files' is not a list of file names",
        ),
        (
            "train/state.json",
            '{"_data_files": [{"filename": "../../x"}]}',
            r"a path in '_data_files' leaves data\.root",
        ),
        ("train/state.json", '{"_data_files": [{"filename": "/etc/passwd"}]}', "is absolute"),
        (
            "train/state.json",
            '{"_data_files": [{"filename": "x.arrow"}]}',
            r"train/x\.arrow: no such file, but state\.json",
        ),
        ("train/state.json", '{"_data_files": []}', "name no file"),
        (
            "train/state.json",
            '{"_data_files": [], "_indices_files": [{}]}',
            "rows are chosen by indices",
        ),
        (
            "train/dataset_info.json",
            '{"features": {"label": {"_type": "ClassLabel", "names": ["a", "a"]}}}',
            "not a list of different",
        ),
        (
            "train/dataset_info.json",
            '{"features": {"label": {"_type": "ClassLabel", "names": ["a"]}}}',
            "label 1 has no name",
        ),
        (
            "train/dataset_info.json",
            '{"features": {"label": {"_type": "ClassLabel", "names": {"0": "a"}}}}',
            "not a list of different",
        ),
        ("train/data-00000-of-00001.arrow", b"", "cannot be read as an Arrow stream"),
        ("train/data-00000-of-00001.arrow", b"ARROW1" + b"\0" * 100, "cannot be read as"),
        ("train/data-00000-of-00001.arrow", b"\xff" * 100, "cannot be read as an Arrow stream"),
    ],
)
def test_what_is_broken_is_named(tmp_path, file, content, message):
    datasets.DatasetDict(train=made(3)).save_to_disk(tmp_path / "root")
    (tmp_path / "root" / file).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    with pytest.raises(DataError, match=message):
        listed(tmp_path / "root")


def test_a_stream_without_its_end_is_not_taken_for_a_shorter_one(tmp_path):
    made(6).save_to_disk(tmp_path)
    file = tmp_path / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    listing = listed(tmp_path)
    for cut in (4, 8, 100, len(whole) // 2, len(whole) - 10):
        file.write_bytes(whole[:-cut])
        with pytest.raises(DataError, match=r"data-00000-of-00001\.arrow: cannot be read as"):
            listed(tmp_path)
        items = list(listing.read(listing.root, listing.table))
        assert len(items) == 6
        assert cut <= 8 or all(
            isinstance(i, ImageError) and i.reason in ("missing", "unreadable") for i in items
        )
    file.unlink()
    assert [item.reason for item in listing.read(listing.root, listing.table)] == ["unreadable"] * 6


def test_metadata_that_is_broken(tmp_path):
    for raw in (b"{", b"5", b'{"info": null}', b"[" * 100_000):
        table = pa.table({"image": [b"x"], "label": ["a"]}).replace_schema_metadata(
            {"huggingface": raw}
        )
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(DataError, match=r"a\.parquet: its metadata `huggingface` is broken"):
            listed(tmp_path)
    for raw in (
        b'{"info": {"features": null}}',
        b'{"info": {"features": {"label": 5, "image": {"_type": "Image"}}}}',
    ):
        table = pa.table({"image": [b"x"], "label": ["a"]}).replace_schema_metadata(
            {"huggingface": raw}
        )
        pq.write_table(table, tmp_path / "a.parquet")
        assert listed(tmp_path).table.num_rows == 1


def test_other_extension_types_do_not_matter_unless_they_are_used(tmp_path):
    features = datasets.Features({**FEATURES, "field": datasets.Array2D((2, 2), "float32")})
    made(2, features=features, field=[np.zeros((2, 2))] * 2).save_to_disk(tmp_path)
    assert listed(tmp_path).table.num_rows == 2
    with pytest.raises(
        DataError, match=r"column 'field' is of the extension type .*, which is not loaded"
    ):
        listed(tmp_path, group="field")


def test_wrong_folders_are_told_at_once(tmp_path):
    (tmp_path / "x.txt").touch()
    with (
        promptly(),
        pytest.raises(
            DataError,
            match=(
                r"looked for dataset_dict\.json or state\.json .*, or \*\.parquet .*; found 1 file"
            ),
        ),
    ):
        listed(tmp_path)


def test_the_stamp_changes_with_the_files(tmp_path):
    made(3).save_to_disk(tmp_path)
    stamp = listed(tmp_path).stamp
    assert listed(tmp_path).stamp == stamp
    os.utime(tmp_path / "data-00000-of-00001.arrow", (5, 5))
    assert listed(tmp_path).stamp != stamp
