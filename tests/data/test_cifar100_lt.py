import hashlib
import importlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import CIFAR100

from discl_ray.config import load_config
from discl_ray.core.images import decode_image
from discl_ray.core.storage import Store
from discl_ray.data.cifar100_lt import cifar100_lt, read_cifar, unpickled
from discl_ray.data.config import Cifar100LTConfig, LongTail
from discl_ray.data.splits import TRAIN, VAL, long_tail_sizes
from discl_ray.errors import ConfigError, DataError, ImageError
from tests.support.runs import promptly

ROOT = Path(__file__).resolve().parents[2]
module = importlib.import_module(
    "discl_ray.data.cifar100_lt"
)  # the package has a function of this name
NAMES = [f"{adjective}_{noun}" for adjective in ("big", "wild") for noun in ("apple", "bear")] + [
    "zebra"
]
PER_CLASS = 30


class Python2(pickle._Pickler):  # the Python of the two, which lets itself be taught
    """Writes text as Python 2 did: the published files are older than bytes."""

    def save_old(self, text):
        data = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(text)

    dispatch = pickle._Pickler.dispatch | {str: save_old, bytes: save_old}


def as_published(value):
    out = io.BytesIO()
    Python2(out, protocol=2).dump(value)
    return out.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def archive():
    rng = np.random.default_rng(0)
    files = {}
    for name, per_class in (("train", PER_CLASS), ("test", 4)):
        fine = rng.permutation(np.repeat(np.arange(len(NAMES)), per_class)).tolist()
        files[name] = {
            "filenames": [f"{NAMES[c]}_s_{i:06d}.png" for i, c in enumerate(fine)],
            "batch_label": f"{name}ing batch 1 of 1",
            "fine_labels": fine,
            "coarse_labels": [c // 2 for c in fine],
            "data": rng.integers(0, 256, (len(fine), 3072), np.uint8),
        }
    return {**files, "meta": {"fine_label_names": NAMES, "coarse_label_names": ["a", "b", "c"]}}


def lay(root, write=as_published, values=None):
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (values or archive()).items():
        (folder / name).write_bytes(write(value))
    return root


def _md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A small archive whose checksums are taken for the published ones."""
    lay(tmp_path)
    sums = {n: _md5((tmp_path / "cifar-100-python" / n).read_bytes()) for n in module.CHECKSUMS}
    monkeypatch.setattr(module, "CHECKSUMS", sums)
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": sums["meta"]})
    return tmp_path


def listed(root, seed=0, **config):
    return cifar100_lt(Cifar100LTConfig(root=str(root), **config), seed)


def counts(listing, split):
    rows = listing.table.to_pylist()
    return [
        sum(row["split"] == split and row["class_key"] == name for row in rows) for name in NAMES
    ]


def test_the_checksums_are_torchvisions():
    published = {
        **dict(CIFAR100.train_list),
        **dict(CIFAR100.test_list),
        CIFAR100.meta["filename"]: CIFAR100.meta["md5"],
    }
    assert published == module.CHECKSUMS
    assert CIFAR100.base_folder == module.FOLDER


def test_images_and_labels_are_torchvisions(cifar):
    listing = listed(cifar, long_tail=None)
    for split in ("train", "test"):
        theirs = CIFAR100(str(cifar), train=split == "train")
        rows = listing.table.filter([s == split for s in listing.table["split"].to_pylist()])
        assert [
            listing.classes.index(key) for key in rows["class_key"].to_pylist()
        ] == theirs.targets
        ours = [decode_image(data) for data in listing.read(listing.root, rows)]
        assert np.array_equal(ours, theirs.data)
    assert listing.classes == theirs.classes == NAMES
    assert listing.names["wild_bear"] == "wild bear"
    assert not listing.in_files


@pytest.mark.parametrize(("imbalance", "total", "few"), [(100, 10_847, 305), (50, 12_608, 249)])
def test_the_profile_of_the_real_set_is_the_published_one(imbalance, total, few):
    sizes = long_tail_sizes(500, imbalance, 100)
    assert (sum(sizes), sizes[0], sizes[-1]) == (total, 500, 500 // imbalance)
    assert sum(n for n in sizes if n < 20) == few
    assert (
        sum(n < 20 for n in sizes)
        + sum(20 <= n <= 100 for n in sizes)
        + sum(n > 100 for n in sizes)
        == 100
    )


def test_classes_shrink_in_the_order_of_labels_and_val_is_what_they_leave(cifar):
    listing = listed(cifar, long_tail=LongTail(imbalance=10), val_per_class=8)
    sizes = long_tail_sizes(PER_CLASS, 10, len(NAMES))
    assert counts(listing, "train") == sizes == [30, 16, 9, 5, 3]
    assert counts(listing, "val") == [0, 8, 8, 8, 8]
    assert counts(listing, "test") == [4] * 5
    assert len(set(listing.table["sample_id"].to_pylist())) == listing.table.num_rows
    assert (
        set(listing.table["domain"].to_pylist())
        == set(listing.table["group"].to_pylist())
        == {None}
    )
    assert counts(
        listed(cifar, long_tail=LongTail(imbalance=10, head=12), val_per_class=100), "train"
    ) == [12, 6, 3, 2, 1]
    assert (
        counts(listed(cifar, long_tail=LongTail(imbalance=10), val_per_class=0), "val") == [0] * 5
    )


def test_without_a_long_tail_all_are_listed(cifar):
    listing = listed(cifar, long_tail=None)
    assert counts(listing, "train") == [PER_CLASS] * 5
    assert counts(listing, "val") == [0] * 5


def test_a_seed_draws_which_stay(cifar):
    def kept(seed, imbalance, split="train"):
        rows = listed(cifar, seed, long_tail=LongTail(imbalance=imbalance)).table.to_pylist()
        return {row["sample_id"] for row in rows if row["split"] == split}

    assert kept(0, 10) == kept(0, 10)
    assert kept(0, 10) != kept(1, 10)
    assert kept(0, 30) < kept(0, 10) < kept(0, 2)  # a longer tail is a part of a shorter one
    assert kept(0, 10, "test") == kept(1, 30, "test")


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    label=st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array),
    imbalance=st.floats(1, 200),
    val_per_class=st.integers(0, 9),
)
def test_no_image_is_in_two_splits_and_no_class_gets_more_than_it_has(
    seed, label, imbalance, val_per_class
):
    split = module.long_tailed(label, 5, LongTail(imbalance=imbalance), val_per_class, seed)
    sizes = long_tail_sizes(int(np.bincount(label).max()), imbalance, 5)
    for c, size in enumerate(sizes):
        mine = split[label == c]
        assert (mine == TRAIN).sum() == min(max(size, 1), len(mine))
        assert (mine == VAL).sum() == min(val_per_class, len(mine) - (mine == TRAIN).sum())


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_pickles_of_todays_python_hold_the_same(protocol):
    value = archive()["test"]
    read = unpickled("test", pickle.dumps(value, protocol))
    assert np.array_equal(read.pop("data"), value.pop("data"))
    assert read == value
    assert np.array_equal(
        unpickled("x", as_published(archive()["test"]))["data"], archive()["test"]["data"]
    )


class Call:
    """Pickles as a call, which unpickling makes."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (lambda made: Call(os.system, f"touch {made}"), "posix.system"),
        (lambda made: Call(eval, f"open('{made}', 'w')"), "(__builtin__|builtins).eval"),
        (lambda made: Call(np.save, str(made), 0), "numpy.save"),
        (
            lambda made: {"data": np.array([Call(os.system, f"touch {made}")], object)},
            "posix.system",
        ),
        (
            lambda made: {"fine_labels": [0, Call(getattr, made, "touch")]},
            "(__builtin__|builtins).getattr",
        ),
        (lambda made: {"data": Call(np.load, str(made))}, "numpy.load"),
        (lambda made: np.random.default_rng(0), "numpy.random._pickle.__"),
    ],
)
def test_a_pickle_that_asks_for_anything_else_is_refused(tmp_path, protocol, attack, named):
    made = tmp_path / "made"
    with pytest.raises(DataError, match=f"train: the pickle asks for {named}") as error:
        unpickled("train", pickle.dumps(attack(made), protocol))
    assert "only arrays of numbers are read" in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_what_is_not_the_published_file_is_refused_before_it_is_unpickled(cifar, monkeypatch, name):
    path = cifar / "cifar-100-python" / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    monkeypatch.setattr(
        module, "unpickled", lambda path, data: pytest.fail(path) if path.endswith(name) else {}
    )
    with pytest.raises(
        DataError, match=f"cifar-100-python/{name}: has MD5 .*, the published file has "
    ) as error:
        module.load(Store.at(cifar), f"cifar-100-python/{name}", links=False)
    assert "unpack cifar-100-python.tar.gz again" in str(error.value)


def test_a_file_is_read_once_while_it_stays_as_it_is(cifar, monkeypatch):
    listing = listed(cifar)
    opened = []
    monkeypatch.setattr(module, "unpickled", lambda path, data: opened.append(path))
    first = list(read_cifar(listing.root, listing.table.slice(0, 3)))
    assert first == list(read_cifar(listing.root, listing.table.slice(0, 3)))
    assert not opened
    path = cifar / "cifar-100-python" / "train"
    path.write_bytes(path.read_bytes() + b"!")
    broken = list(read_cifar(listing.root, listing.table.slice(0, 3)))
    assert [type(item) for item in broken] == [ImageError] * 3
    assert "has MD5" in str(broken[0])
    path.unlink()
    assert "there is no 'cifar-100-python/train'" in str(
        next(read_cifar(listing.root, listing.table))
    )


def test_rows_in_any_order_are_the_images_asked_for(cifar):
    listing = listed(cifar)
    forward = list(listing.read(listing.root, listing.table))
    backward = listing.table.take(list(range(listing.table.num_rows))[::-1])
    assert list(listing.read(listing.root, backward)) == forward[::-1]


def test_a_wrong_folder_is_told_at_once(tmp_path):
    with promptly():
        for folder, found in ((".", "the folder is empty"), ("cifar-100-python", "found 3 files")):
            with pytest.raises(DataError) as error:
                listed(tmp_path / folder)
            assert "looked for cifar-100-python/ with train, test and meta" in str(error.value)
            assert found in str(error.value)
            lay(tmp_path)
        with pytest.raises(DataError, match="has MD5"):
            listed(tmp_path)


def test_the_stamp_does_not_depend_on_the_place(cifar):
    stamp = listed(cifar / ".").stamp
    (cifar / "elsewhere").mkdir()
    (cifar / "cifar-100-python").rename(cifar / "elsewhere" / "cifar-100-python")
    assert listed(cifar / "elsewhere").stamp == stamp


def test_the_configuration_wants_only_the_root():
    files = [ROOT / "conf" / name for name in ("cifar100_lt.yaml", "sdxl-refiner.yaml")]
    with pytest.raises(ConfigError, match=r"1 problem in the configuration\n  data\.root"):
        load_config(files)
    config = load_config(files, ["data.root=/somewhere", "data.long_tail.imbalance=50"])
    assert config.plan.levels == (50, 70, 90)
    assert (config.plan.replicas, config.hard.below, config.data.long_tail.imbalance) == (8, 20, 50)
    assert load_config(files, ["data.root=/x", "data.long_tail=null"]).data.long_tail is None
