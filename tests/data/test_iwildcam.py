import csv
import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.config import load_config
from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.config import IWildCamConfig
from discl_ray.data.iwildcam import SPLITS as WORDS
from discl_ray.data.iwildcam import by_column, by_row, iwildcam
from discl_ray.errors import ConfigError, DataError
from tests.support.by_column import agree
from tests.support.runs import promptly

PNG = encode_image(np.zeros((2, 2, 3), np.uint8), "png")
ROOT = Path(__file__).resolve().parents[2]
COLUMNS = [
    *("split", "image_id", "filename", "location", "location_remapped", "seq_id"),
    *("sequence_remapped", "seq_num_frames", "datetime", "category_id", "y"),
]
SPECIES = ("empty", "tayassu pecari", "madoqua guentheri", "panthera onca")
SPLITS = {"train": 5, "val": 3, "test": 4, "id_val": 2, "id_test": 2}
HERE = {
    "train": ("train", "id"),
    "id_val": ("val", "id"),
    "val": ("val", "ood"),
    "id_test": ("test", "id"),
    "test": ("test", "ood"),
}


def rows_of(counts=SPLITS):
    rows = []
    for split, count in counts.items():
        for i in range(count):
            n = len(rows)
            trap = {"val": 100, "test": 200}.get(split, 0) + i % 2
            image = f"8f{n:04d}-21bc-11ea-a13a-137349068a90"
            cells = (
                split,
                image,
                f"{image}.jpg",
                trap + 500,
                trap,
                f"seq{n}",
                n,
                1,
                "2013-06-05 05:44:19.000",
                70,
                i % 4,
            )
            rows.append(dict(zip(COLUMNS, map(str, cells), strict=True)))
    return rows


def categories():
    rows = [(y, 10 * y, name) for y, name in enumerate(SPECIES)]
    return [
        *rows,
        (99999, 5, "gorilla gorilla"),
        (99999, 6, "unknown"),
    ]  # those no image of the labelled set has


def written(header, rows):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def lay(root, rows=None, *, header=COLUMNS, names=None, images=True):
    rows = rows or rows_of()
    (root / "train").mkdir(parents=True, exist_ok=True)
    (root / "metadata.csv").write_text(written(header, [[row[c] for c in header] for row in rows]))
    (root / "categories.csv").write_text(
        written(("y", "category_id", "name"), names or categories())
    )
    for row in rows if images else ():
        (root / "train" / row["filename"]).write_bytes(PNG)
    return root


def listed(root, **config):
    return iwildcam(IWildCamConfig(root=str(root), **config), 0)


def refused(root, **config):
    with pytest.raises(DataError) as error:
        listed(root, **config)
    return str(error.value)


def test_splits_domains_cameras_and_species_are_those_of_metadata(tmp_path):
    rows = rows_of()
    listing = listed(lay(tmp_path, rows))
    assert listing.table.to_pylist() == [
        {
            "sample_id": f"train/{row['filename']}",
            "path": f"train/{row['filename']}",
            "row": None,
            "class_key": SPECIES[int(row["y"])],
            "split": HERE[row["split"]][0],
            "domain": HERE[row["split"]][1],
            "group": row["location_remapped"],
        }
        for row in rows
    ]
    assert Counter(
        zip(*(listing.table[c].to_pylist() for c in ("split", "domain")), strict=True)
    ) == {
        ("train", "id"): 5,
        ("val", "id"): 2,
        ("val", "ood"): 3,
        ("test", "id"): 2,
        ("test", "ood"): 4,
    }
    assert set(listing.read(listing.root, listing.table)) == {PNG}
    assert listing.in_files


def test_labels_are_y_and_not_sorted_names(tmp_path):
    listing = listed(lay(tmp_path))
    assert listing.classes == list(SPECIES)
    assert listing.classes != sorted(listing.classes)


def test_a_y_without_images_is_a_class_and_one_beyond_is_none(tmp_path):
    rows = [row for row in rows_of() if row["y"] != "2"]
    assert listed(lay(tmp_path, rows)).classes == list(SPECIES)
    rows = [row for row in rows_of() if row["y"] in "01"]
    assert listed(lay(tmp_path, rows)).classes == list(SPECIES[:2])


def test_columns_may_stand_in_any_order_among_others(tmp_path):
    before = listed(lay(tmp_path)).table
    rows = [{**row, "": str(i)} for i, row in enumerate(rows_of())]
    assert listed(lay(tmp_path, rows, header=["", *COLUMNS[::-1]])).table.equals(before)
    assert listed(
        lay(tmp_path, header=["y", "split", "location_remapped", "filename"])
    ).table.equals(before)
    path = tmp_path / "metadata.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert listed(tmp_path).table.equals(before)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"split": "valid"}, "split 'valid' is none of train, id_val, val, id_test, test"),
        ({"split": "Train"}, "split 'Train' is none of"),
        ({"split": ""}, "split '' is none of"),
        ({"y": ""}, "y = '' is not a label"),
        ({"y": "-1"}, "y = '-1' is not a label"),
        ({"y": "1.0"}, "y = '1.0' is not a label"),
        ({"y": "nan"}, "y = 'nan' is not a label"),
        ({"y": "9" * 5000}, "is not a label"),
        ({"location_remapped": ""}, "location_remapped is empty"),
        ({"filename": ""}, "filename '' names a folder"),
        ({"filename": "../metadata.csv/../../x.jpg"}, "leaves data.root"),
        ({"filename": "a\x00.jpg"}, "NUL"),
        ({"filename": rows_of()[0]["filename"]}, "is already in line 2"),
    ],
)
def test_a_line_that_cannot_be_is_named(tmp_path, change, rule):
    lay(tmp_path)
    rows = rows_of()
    rows[3] |= change
    lay(tmp_path, rows, images=False)
    message = refused(tmp_path)
    assert message.startswith("metadata.csv: cannot be used as it is:\n  line 5: ")
    assert rule in message
    assert len(message) < 400


def test_a_y_without_a_name_is_told(tmp_path):
    rows = rows_of()
    rows[3]["y"] = "99999"
    assert "y = 99999 is 'gorilla gorilla' already" in refused(lay(tmp_path, rows))
    rows[3]["y"] = "4"
    assert (
        refused(lay(tmp_path, rows))
        == "categories.csv: has no name for y = 4, which metadata.csv has"
    )
    rows[3]["y"] = "900000"
    assert "has no name for y = 900000" in refused(lay(tmp_path, rows, names=categories()[:4]))
    rows = [row for row in rows_of() if row["y"] != "2"]
    names = [row for row in categories() if row[0] != 2]
    assert "has no name for y = 2; labels are 0 to 3 without a gap" in refused(
        lay(tmp_path, rows, names=names)
    )


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ((1, 7, "puma concolor"), "line 8: y = 1 is 'tayassu pecari' already"),
        (("one", 7, "puma concolor"), "line 8: y = 'one' is not a label"),
        (("", "", ""), "line 8: y = '' is not a label"),
        ((1, 7), "line 8: has 2 fields, the header has 3"),
    ],
)
def test_a_category_that_cannot_be_is_named(tmp_path, row, rule):
    message = refused(lay(tmp_path, names=[*categories(), row]))
    assert message.startswith("categories.csv: ")
    assert rule in message


def test_two_species_of_one_name_are_told(tmp_path):
    names = [(y, c, "empty" if y == 2 else name) for y, c, name in categories()]
    assert "line 4: 'empty' is the name of another y in line 2 already" in refused(
        lay(tmp_path, names=names)
    )
    names = [(y, c, " " if y == 2 else name) for y, c, name in categories()]
    assert "line 4: name is empty" in refused(lay(tmp_path, names=names))


@pytest.mark.parametrize("column", ["split", "filename", "y", "location_remapped"])
def test_columns_that_lack_or_stand_twice_are_named(tmp_path, column):
    message = refused(lay(tmp_path, header=[c for c in COLUMNS if c != column]))
    assert message.startswith(
        f"metadata.csv: line 1: no column '{column}'; its columns are split, image_id"
        if column != "split"
        else "m"
    )
    assert f"2 columns are called '{column}'" in refused(lay(tmp_path, header=[*COLUMNS, column]))
    lay(tmp_path)
    (tmp_path / "categories.csv").write_text("y,category_id\n0,0\n")
    assert (
        refused(tmp_path)
        == "categories.csv: line 1: no column 'name'; its columns are y, category_id"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "split,filename,y,location_remapped\n",
        'split,filename,y,location_remapped\n"',
        "\x00\x01",
    ],
)
def test_a_broken_table_is_told(tmp_path, text):
    lay(tmp_path)
    (tmp_path / "metadata.csv").write_text(text)
    assert refused(tmp_path).startswith("metadata.csv: ")
    (tmp_path / "metadata.csv").write_bytes(b"split,filename\n\xff\xfe")
    assert "line 2: is not UTF-8" in refused(tmp_path)


def test_a_row_of_another_length_and_an_open_quote_are_named(tmp_path):
    path = lay(tmp_path) / "metadata.csv"
    whole = path.read_text()
    path.write_text(whole + "train,short\n")
    assert f"line {len(rows_of()) + 2}: has 2 fields, the header has 11" in refused(tmp_path)
    path.write_text(whole + 'train,"never closed\n' + "x\n" * 9)
    assert f"line {len(rows_of()) + 2}: " in refused(tmp_path)
    assert "is a quote not closed?" in refused(tmp_path)


def test_a_wrong_folder_is_told_at_once(tmp_path):
    with promptly():
        assert "the folder is empty" in refused(tmp_path)
        lay(tmp_path / "iwildcam_v2.0", images=False)
        message = refused(tmp_path)
        assert (
            "looked for WILDS' iwildcam_v2.0: metadata.csv, categories.csv and train/; there is no "
            "'metadata.csv'" in message
        )
        assert "found 2 files (2 .csv) in iwildcam_v2.0" in message
        (tmp_path / "iwildcam_v2.0" / "train").rmdir()
        assert (
            "the images of metadata.csv; there is none of its 1 folders, such as 'train'"
            in refused(tmp_path / "iwildcam_v2.0")
        )


def test_it_reads_from_object_stores(tmp_path):
    lay(tmp_path)
    memory = Store.at("memory://wilds")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            with memory.filesystem.open_output_stream(
                memory.path(path.relative_to(tmp_path).as_posix())
            ) as stream:
                stream.write(path.read_bytes())
    assert listed("memory://wilds").table.equals(listed(tmp_path).table)


def test_the_stamp_follows_tables_and_the_folder(tmp_path):
    lay(tmp_path)
    stamps = [listed(tmp_path).stamp, listed(tmp_path).stamp]
    os.utime(tmp_path / "train", (1, 1))
    stamps.append(listed(tmp_path).stamp)
    lay(tmp_path, rows_of()[:-1], images=False)
    stamps.append(listed(tmp_path).stamp)
    assert stamps[0] == stamps[1]
    assert len(set(stamps)) == 3


def test_the_configuration_wants_only_the_root():
    files = [ROOT / "conf" / name for name in ("iwildcam.yaml", "sdxl-refiner.yaml")]
    with pytest.raises(ConfigError, match=r"1 problem in the configuration\n  data\.root"):
        load_config(files)
    config = load_config(files, ["data.root=/somewhere", "generator.size=[264,480]"])
    assert config.plan.levels == (50, 70, 90)
    assert (config.hard.rule, config.hard.quantile, config.hard.exclude_classes) == (
        "confidence",
        0.064,
        ("empty",),
    )
    assert (
        config.prompts.generation == (config.prompts.filter,) == ("a photo of {name} in the wild",)
    )
    assert (config.plan.replicas, config.filter.threshold) == (8, 0.25)


RIGHT = {
    "split": list(WORDS),
    "filename": [f"{number}.jpg" for number in range(9)],
    "y": ["0", "1", "007"],
    "location_remapped": ["3", "camera, 4", " 5"],
}
WRONG = {
    "split": ["", "Train", "valid"],
    "filename": ["0.jpg", "./0.jpg", " 1.jpg", "", "../../x", "d\\2.jpg", "caf\u00e9.jpg"],
    "y": ["", "-1", "1.0", "9999999", "\u0663"],
    "location_remapped": ["", " ", "\u00a0"],
}
ODD_LINES = ["", "train", ",,,", ",,,,", 'train,"never closed', 'a,"b"c,1,2', "\0,\0,\0,\0"]


@given(data=st.data(), careful=st.booleans())
def test_metadata_by_column_is_what_it_is_by_row(tmp_path_factory, data, careful):
    root = Store.at(tmp_path_factory.getbasetemp())
    any_of = {name: st.sampled_from(RIGHT[name] + WRONG[name]) for name in RIGHT}
    one_of = {name: st.sampled_from(cells) for name, cells in RIGHT.items()}
    columns = st.fixed_dictionaries(one_of if careful else any_of)
    key = {"unique_by": lambda row: row["filename"]} if careful else {}
    rows = data.draw(st.lists(columns, min_size=careful, max_size=4, **key))
    header = data.draw(st.permutations(list(RIGHT)))
    if not careful:
        header[-1] = data.draw(st.sampled_from([header[-1], header[0], "more"]))
    cells = [[row.get(name, "") for name in header] for row in rows]
    lines = written(header, cells).split("\n")[:-1]
    if not careful:
        lines.insert(data.draw(st.integers(0, len(lines))), data.draw(st.sampled_from(ODD_LINES)))
    text = data.draw(st.sampled_from(["\n", "\r\n"])).join(lines)
    assert agree(lambda: by_column(root, text), lambda: by_row(root, text))
