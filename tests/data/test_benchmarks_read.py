"""The paper's four benchmarks, small and in their real layout.

Each is read to its end as its file in conf/ says.
"""

from collections import Counter

import numpy as np
import pyarrow.compute as pc
import pytest

from discl_ray.config import load_config
from discl_ray.core.images import decode_image, encode_image
from discl_ray.core.storage import Store
from discl_ray.data import read_samples
from discl_ray.data.wordnet import wordnet_names
from tests.data import test_cifar100_lt as cifar_files
from tests.data import test_imagenet_lt as imagenet_files
from tests.data import test_inaturalist as inaturalist_files
from tests.data import test_iwildcam as iwildcam_files
from tests.support.runs import ROOT

cifar = cifar_files.cifar  # a fixture


def picture(number):
    return encode_image(np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8), "png")


def unlike(root):
    """The same data set with no two images alike.

    Copies of one image would be drawn into one split.
    """
    images = (p for p in sorted(root.rglob("*")) if p.suffix.lower() in (".jpg", ".jpeg"))
    for number, path in enumerate(images):
        path.write_bytes(picture(number))
    return root


@pytest.fixture
def read(tmp_path):
    """Reads a data set as its file in conf/ says."""

    def of(name, root, *overrides, run="run"):
        config = load_config(ROOT / "conf" / f"{name}.yaml", [f"data.root={root}", *overrides])
        return read_samples(config.data, config.seed, Store.at(tmp_path / run))

    return of


def counts(samples, split, **where):
    """Images of each class in a split."""
    rows = samples.table.filter(pc.equal(samples.table["split"], split)).to_pylist()
    found = Counter(
        row["label"] for row in rows if all(row[key] == value for key, value in where.items())
    )
    return [found[label] for label in range(len(samples.classes))]


def column(samples, name):
    return set(samples.table[name].to_pylist())


def test_imagenet_lt(read, tmp_path):
    root = unlike(imagenet_files.lay(tmp_path / "imagenet", flat=True))
    samples = read("imagenet_lt", root)
    assert [counts(samples, split) for split in ("train", "val", "test")] == [
        [5, 3, 2, 1],
        [2] * 4,
        [3] * 4,
    ]
    assert samples.classes == tuple(wordnet_names(imagenet_files.IDS).values())
    assert samples.classes[:2] == ("tench", "goldfish")
    assert column(samples, "group") == column(samples, "domain") == {None}
    assert samples.rejects.num_rows == 0
    lines = [line.split() for found in imagenet_files.lists_of().values() for line in found]
    assert {row["sample_id"]: row["label"] for row in samples.table.to_pylist()} == {
        path: int(y) for path, y in lines
    }


@pytest.mark.parametrize(
    ("imbalance", "train", "val"),
    [(100, [30, 9, 3, 1, 1], [0, 20, 20, 20, 20]), (10, [30, 16, 9, 5, 3], [0, 14, 20, 20, 20])],
)
def test_cifar100_lt(read, cifar, imbalance, train, val):
    samples = read("cifar100_lt", cifar, f"data.long_tail.imbalance={imbalance}")
    assert [counts(samples, split) for split in ("train", "val", "test")] == [train, val, [4] * 5]
    assert samples.classes == ("big apple", "big bear", "wild apple", "wild bear", "zebra")
    assert column(samples, "group") == column(samples, "domain") == {None}
    archive = cifar_files.archive()
    rows = samples.with_images(samples.table).to_pylist()
    for row in rows:
        split, number = row["sample_id"].split("/")
        assert row["label"] == archive[split]["fine_labels"][int(number)]
        pixels = archive[split]["data"][int(number)].reshape(3, 32, 32).transpose(1, 2, 0)
        assert np.array_equal(decode_image(row["image"]["bytes"]), pixels)


def test_inaturalist2018(read, tmp_path):
    files = {
        "train2018.json": inaturalist_files.annotations({2: 40, 0: 20, 10: 3}, 0),
        "val2018.json": inaturalist_files.annotations({0: 3, 2: 3, 10: 3}, 500),
    }
    root = unlike(inaturalist_files.lay(tmp_path / "inat2018", files))
    samples = read("inaturalist2018", root)
    assert [counts(samples, split) for split in ("train", "val", "test")] == [
        [19, 38, 3, 0],
        [1, 2, 0, 0],
        [3, 3, 3, 0],
    ]
    assert samples.classes == ("0", "2", "10", "117")  # as the annotations hide them
    assert column(samples, "group") == column(samples, "domain") == {None}
    (root / "categories.json").write_text(
        '[{"id": 2, "name": "Chara braunii"}, {"id": 0, "name": "Hermodice carunculata"}]'
    )
    named = read("inaturalist2018", root)
    assert named.classes == ("Hermodice carunculata", "Chara braunii", "10", "117")
    assert named.table.drop(["class_name"]).equals(samples.table.drop(["class_name"]))


def test_iwildcam(read, tmp_path):
    rows = iwildcam_files.rows_of()
    root = unlike(iwildcam_files.lay(tmp_path / "iwildcam_v2.0", rows))
    (tmp_path / "names.csv").write_text(
        "class,name\ntayassu pecari,white-lipped peccary\npanthera onca,jaguar\n"
    )
    samples = read("iwildcam", root, f"data.names={tmp_path}/names.csv")
    assert samples.classes == ("empty", "white-lipped peccary", "madoqua guentheri", "jaguar")
    for word, (split, domain) in iwildcam_files.HERE.items():
        expected = Counter(int(row["y"]) for row in rows if row["split"] == word)
        assert counts(samples, split, domain=domain) == [expected[y] for y in range(4)]
    cameras = {(row["split"], row["domain"], row["group"]) for row in samples.table.to_pylist()}
    assert {group for *where, group in cameras if where == ["test", "ood"]} == {"200", "201"}
    assert {group for *where, group in cameras if where == ["train", "id"]} == {"0", "1"}
    assert {row["class_name"] for row in samples.table.to_pylist() if row["label"] == 3} == {
        "jaguar"
    }
