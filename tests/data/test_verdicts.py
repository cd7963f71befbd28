import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.config import AnyDataConfig, ImageFolderConfig, LongTail
from discl_ray.data.listing import REJECTS, inline
from discl_ray.data.samples import read_samples
from discl_ray.data.scan import SCANNED
from discl_ray.data.summary import summarize_samples
from discl_ray.data.verdicts import judge_rows
from tests.support.samples import picture, read


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


def test_a_long_tail_is_cut_from_train_alone(folder, tmp_path):
    samples = read(folder, tmp_path / "run", long_tail=LongTail(imbalance=4))
    train = samples.table.filter(pc.equal(samples.table["split"], "train"))[
        "class_name"
    ].to_pylist()
    assert (train.count("ant"), train.count("bee")) == (14, 3)
    assert samples.rejects.num_rows == 0


def judged(rows, config=None):
    """Verdicts of (class, split, content, reason) rows."""
    table = [
        {"sample_id": f"s{i}", "class_key": key, "split": split, "bytes": b""}
        for i, (key, split, _, _) in enumerate(rows)
    ]
    found = [
        {"sample_id": f"s{i}", "sha256": content, "reason": reason}
        for i, (_, _, content, reason) in enumerate(rows)
    ]
    listing = inline(table, Store.at("."))
    scanned = pa.Table.from_pylist(found, schema=SCANNED)
    config = config or ImageFolderConfig(root=".", val_fraction=0, test_fraction=0)
    return listing, judge_rows(config, listing, scanned, listing.keys, 0)


def test_what_is_broken_and_what_has_two_labels_is_rejected():
    rows = [
        ("a", "train", "1", None),
        ("b", "test", "1", None),
        ("b", "train", None, "truncated"),
        ("b", "train", "2", None),
    ]
    listing, verdicts = judged(rows)
    assert verdicts.label.tolist() == [0, 1, 1, 1]
    assert verdicts.good.tolist() == [False, False, False, True]
    rejects = verdicts.rejects(listing)
    assert rejects.schema.equals(REJECTS)
    assert rejects["sample_id"].to_pylist() == ["s0", "s1", "s2"]
    assert rejects["split"].to_pylist() == ["train", "test", "train"]
    assert rejects["reason"].to_pylist() == ["two_labels", "two_labels", "truncated"]
    assert rejects["detail"].to_pylist() == [
        "two_labels: 'a' here, and the same bytes are 'b' in s1",
        "two_labels: 'b' here, and the same bytes are 'a' in s0",
        None,
    ]


def test_copies_without_a_group_are_drawn_together():
    rows = [("ab"[i % 2], None, f"{i % 2}-{i % 10}", None) for i in range(200)]
    config = ImageFolderConfig(root=".", val_fraction=0.2, test_fraction=0.2)
    _, verdicts = judged(rows, config)
    assert set(verdicts.split.tolist()) == {0, 1, 2}
    assert verdicts.good.all()
    splits = {}
    for (_, _, content, _), split in zip(rows, verdicts.split.tolist(), strict=True):
        splits.setdefault(content, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())


def test_a_data_set_that_is_made_is_only_checked_for_broken_images():
    rows = [("a", "train", "1", None), ("b", "test", "1", None)]
    _, verdicts = judged(rows, AnyDataConfig())
    assert verdicts.good.all()
    assert isinstance(verdicts.good, np.ndarray)
