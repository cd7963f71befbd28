import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.config import load_config
from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.config import INaturalistConfig
from discl_ray.data.inaturalist import PARTS, columns_of, inaturalist, is_one_object
from discl_ray.errors import ConfigError, DataError
from tests.support.runs import promptly

PNG = encode_image(np.zeros((2, 2, 3), np.uint8), "png")
ROOT = Path(__file__).resolve().parents[2]
GROUPS = {0: "Animalia", 2: "Plantae", 10: "Plantae", 117: "Aves"}
SPECIES = {
    0: "Hermodice carunculata",
    2: "Chara braunii",
    10: "Ruppia maritima",
    117: "Gavia immer",
}


def annotations(counts, first, groups=GROUPS):
    """One of the two files, with the fields and the hidden names it was published with."""
    images, found = [], []
    for category, count in counts.items():
        for _ in range(count):
            id_ = first + len(images)
            file_name = f"train_val2018/{groups[category]}/{category}/{id_:032x}.jpg"
            images.append(
                {
                    "id": id_,
                    "width": 800,
                    "height": 600,
                    "file_name": file_name,
                    "license": 3,
                    "rights_holder": "x",
                }
            )
            found.append({"id": id_, "image_id": id_, "category_id": category})
    categories = [
        {"id": c, "name": str(c), "supercategory": g, "kingdom": str(c), "genus": str(c)}
        for c, g in reversed(groups.items())
    ]
    licenses = [{"id": 3, "name": "CC", "url": ""}]
    info = {"year": 2018, "version": "1"}
    return {
        "info": info,
        "images": images,
        "annotations": found[::-1],
        "categories": categories,
        "licenses": licenses,
    }


def published():
    return {
        "train2018.json": annotations({2: 4, 0: 3, 10: 1}, 0),
        "val2018.json": annotations({0: 2, 2: 2, 10: 2}, 500),
    }


def lay(root, files=None, *, images=True):
    for name, value in (files or published()).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(value if isinstance(value, str) else json.dumps(value))
        for image in value["images"] if images else ():
            path = root / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PNG)
    return root


def listed(root, **config):
    return inaturalist(INaturalistConfig(root=str(root), **config), 0)


def refused(root, **config):
    with pytest.raises(DataError) as error:
        listed(root, **config)
    return str(error.value)


def test_splits_and_categories_are_those_of_the_files(tmp_path):
    files = published()
    listing = listed(lay(tmp_path, files))
    expected = []
    for name, split in (("train2018.json", "train"), ("val2018.json", "test")):
        category = {a["image_id"]: str(a["category_id"]) for a in files[name]["annotations"]}
        nothing = {"row": None, "domain": None, "group": None}
        for image in files[name]["images"]:
            path = image["file_name"]
            expected.append(
                {
                    "sample_id": path,
                    "path": path,
                    "class_key": category[image["id"]],
                    "split": split,
                    **nothing,
                }
            )
    assert listing.table.to_pylist() == expected
    assert set(listing.read(listing.root, listing.table)) == {PNG}
    assert listing.in_files


def test_labels_follow_the_category_ids_and_include_those_without_images(tmp_path):
    listing = listed(lay(tmp_path))
    assert listing.classes == ["0", "2", "10", "117"]
    assert "117" not in listing.table["class_key"].to_pylist()


@pytest.mark.parametrize("whole", [False, True])
def test_names_come_from_the_list_that_was_published_later(tmp_path, whole):
    lay(tmp_path)
    hidden = listed(tmp_path)
    assert hidden.names == {str(c): str(c) for c in GROUPS}
    named = [{"id": c, "name": name, "kingdom": "x"} for c, name in SPECIES.items()] + [
        {"id": 9999, "name": "no class here"}
    ]
    (tmp_path / "categories.json").write_text(json.dumps({"categories": named} if whole else named))
    listing = listed(tmp_path)
    assert listing.names == {str(c): name for c, name in SPECIES.items()}
    assert listing.classes == hidden.classes
    assert listing.table.equals(hidden.table)


def edited(**changes):
    """train2018.json with one thing in it another.

    `images_2_id=None` takes the field away, other values stand in for it.
    """
    value = published()["train2018.json"]
    for where, new in changes.items():
        at = [int(part) if part.isdigit() else part for part in where.split("__")]
        inner = value
        for part in at[:-1]:
            inner = inner[part]
        if new is None:
            del inner[at[-1]]
        else:
            inner[at[-1]] = new
    return value


IMAGE = published()["train2018.json"]["images"][0]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"images": None}, "images: a list is needed"),
        ({"annotations": {"a": 1}}, "annotations: a list is needed"),
        ({"categories": "x"}, "categories: a list is needed"),
        ({"images__3": 17}, "images[3]: an object is needed"),
        ({"images__3__id": None}, "images[3].id: is missing; a whole number is needed"),
        ({"images__3__id": "3"}, 'images[3].id: is "3"; a whole number is needed'),
        ({"images__3__id": 3.0}, "images[3].id: is 3.0; a whole number is needed"),
        ({"images__3__id": True}, "images[3].id: is true; a whole number is needed"),
        ({"images__3__file_name": None}, "images[3].file_name: is missing; text is needed"),
        ({"images__3__file_name": ["x"] * 99}, "images[3].file_name: is ["),
        ({"images__3__id": 1}, "images[3]: id 1 is already in images[1]"),
        ({"images__3__file_name": IMAGE["file_name"]}, "is duplicated"),
        (
            {"images__3__file_name": "../secret.jpg"},
            "images[3].file_name: '../secret.jpg' leaves data.root",
        ),
        ({"images__3__file_name": "/etc/passwd"}, "is absolute and not under data.root"),
        ({"images__3__file_name": ""}, "is empty"),
        ({"annotations__3__image_id": 77}, "annotations[3]: there is no image with id 77"),
        ({"annotations__3__image_id": None}, "annotations[3].image_id: is missing"),
        ({"annotations__3__category_id": 5}, "annotations[3]: there is no category with id 5"),
        ({"annotations__3__category_id": "5"}, 'annotations[3].category_id: is "5"'),
        (
            {"annotations__3": {"image_id": 0, "category_id": 0}},
            "annotations[7]: image 0 is category 2 here and 0 in annotations[3]",
        ),
        (
            {"annotations": published()["train2018.json"]["annotations"][1:]},
            "images[7]: image 7 has no annotation",
        ),
        ({"categories__1__id": 0}, "categories[3]: id 0 is duplicated"),
        ({"categories__1__name": None}, "categories[1].name: is missing; text is needed"),
    ],
)
def test_an_entry_that_cannot_be_is_named(tmp_path, changes, rule):
    lay(tmp_path)
    (tmp_path / "train2018.json").write_text(json.dumps(edited(**changes)))
    message = refused(tmp_path)
    assert message.startswith("train2018.json: ")
    assert rule in message
    assert len(message) < 1500


def test_the_second_file_is_held_against_the_first(tmp_path):
    files = published()
    files["val2018.json"]["annotations"][0]["category_id"] = 5
    message = refused(lay(tmp_path, files))
    assert message.startswith("val2018.json: ")
    assert "annotations[0]: there is no category with id 5" in message
    files = published()
    files["val2018.json"]["images"][1]["file_name"] = files["train2018.json"]["images"][0][
        "file_name"
    ]
    assert "val2018.json: cannot be used as it is:\n  images[1]" in refused(lay(tmp_path, files))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1, 2",
        "nonsense",
        "[" * 100_000,
        '{"images": ' + "9" * 5000 + "}",
        "[]",
        "17",
        "null",
        '"images"',
        "\ufeff{}",
    ],
)
def test_what_is_no_json_or_another_is_told(tmp_path, text):
    lay(tmp_path)
    (tmp_path / "train2018.json").write_text(text)
    message = refused(tmp_path)
    assert message.startswith("train2018.json: ")
    assert len(message) < 300


def test_many_problems_are_cut_short(tmp_path):
    lay(tmp_path)
    (tmp_path / "train2018.json").write_text(
        json.dumps({**annotations({0: 5000}, 0), "annotations": []})
    )
    assert refused(tmp_path).endswith("there may be more")


def test_a_wrong_folder_is_told_at_once(tmp_path):
    with promptly():
        assert "the folder is empty" in refused(tmp_path)
        (tmp_path / "train2017.json").write_text("{}")
        message = refused(tmp_path)
        assert (
            "looked for train2018.json, val2018.json and train_val2018/; there is no "
            "'train2018.json'" in message
        )
        assert "found 1 file (1 .json) in train2017.json" in message
        lay(tmp_path, images=False)
        assert "the images of train2018.json; there is none of its 3 folders" in refused(tmp_path)


def test_it_reads_from_object_stores(tmp_path):
    lay(tmp_path)
    memory = Store.at("memory://inat")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            with memory.filesystem.open_output_stream(
                memory.path(path.relative_to(tmp_path).as_posix())
            ) as stream:
                stream.write(path.read_bytes())
    assert listed("memory://inat").table.equals(listed(tmp_path).table)


def test_the_stamp_follows_annotations_and_folders(tmp_path):
    lay(tmp_path)
    stamps = [listed(tmp_path).stamp, listed(tmp_path).stamp]
    os.utime(tmp_path / "train_val2018" / "Plantae" / "10", (1, 1))
    stamps.append(listed(tmp_path).stamp)
    lay(tmp_path, {"val2018.json": annotations({0: 2, 2: 2}, 500)})
    stamps.append(listed(tmp_path).stamp)
    assert stamps[0] == stamps[1]
    assert len(set(stamps)) == 3


def test_the_configuration_wants_only_the_root():
    files = [ROOT / "conf" / name for name in ("inaturalist2018.yaml", "sdxl-refiner.yaml")]
    with pytest.raises(ConfigError, match=r"1 problem in the configuration\n  data\.root"):
        load_config(files)
    config = load_config(files, ["data.root=/somewhere"])
    assert config.plan.levels == (0, 10, 30, 50)
    assert (config.plan.replicas, config.hard.below, config.data.val_fraction) == (4, 20, 0.05)


def text_of(value):
    return json.dumps(value).encode()


def test_columns_hold_what_the_entries_do():
    value = published()["train2018.json"]
    found = columns_of(text_of(value))
    assert found is not None
    for part, fields in PARTS.items():
        wanted = [{name: entry[name] for name, _ in fields} for entry in value[part]]
        assert found[part].to_pylist() == wanted


@pytest.mark.parametrize(
    "text",
    [b"null", b"{} null", b"{}{}", b"[]", b" {}", b"{" * 30 + b"}" * 30, b'{"a": "\\\\"}', b'{"a}'],
)
def test_what_arrow_would_die_of_is_no_object(text):
    assert not is_one_object(text)
    assert columns_of(text) is None


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_brackets_and_quotes_in_texts_are_text(chunk):
    assert is_one_object(text_of({"a": '}"{[[[[', "b": [{"c": ["]"] * 3}]}) + b"\n ", chunk)
    assert not is_one_object(b'{"a": "x"}, {"b": "x"}', chunk)


@given(data=st.data())
def test_a_file_that_is_read_as_columns_is_what_its_json_says(data):
    """Whatever is edited: Arrow's parser lives, and what it finds is what Python's does."""
    text = json.dumps({part: values[:3] for part, values in SMALL.items()})
    begin = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(begin, min(len(text), begin + 12)))
    edit = data.draw(
        st.sampled_from(["null", "1.5", "[]", "{}", '"x"', "}", "]", ",", '"', "9" * 20])
    )
    edited_text = text[:begin] + edit + text[end:]
    found = columns_of(edited_text.encode())
    if found is None:
        return
    value = json.loads(edited_text)
    for part, fields in PARTS.items():
        wanted = [{name: entry[name] for name, _ in fields} for entry in value[part]]
        assert found[part].to_pylist() == wanted


EDITS = ["null", "1.5", "[]", "{}", '"x"', "}", "]", ",", '"', "9" * 20]
SMALL = {part: published()["train2018.json"][part] for part in PARTS}
