from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data.config import AnyDataConfig
from discl_ray.data.listing import inline
from discl_ray.data.samples import read_samples
from discl_ray.data.summary import summarize_samples
from tests.support.samples import picture, whole


def test_no_val_and_no_test_image_are_said_with_what_mends_it(folder, tmp_path):
    samples = whole(folder, tmp_path / "run", val_fraction=0, test_fraction=0)
    words = summarize_samples(samples)
    assert "no val image to tune on: raise data.val_fraction" in words
    assert "no test image to judge by: raise data.test_fraction" in words


def test_images_and_classes_are_counted_by_split(tmp_path):
    rows = [
        {
            "sample_id": f"s{i}",
            "class_key": "ab"[i % 2],
            "split": split,
            "bytes": encode_image(picture(i), "png"),
        }
        for i, split in enumerate(["train", "train", "train", "val", "test", "test"])
    ]
    samples = read_samples(
        AnyDataConfig(), inline(rows, Store.at("."), "abc"), seed=0, run=Store.at(tmp_path)
    )
    words = summarize_samples(samples).split("\n")
    assert words[0] == "  3 classes · images: train 3, val 1, test 2"
    assert "  1 class without an image to train on (train): c" in words
    assert "  2 classes without an image to tune on (val): a, c" in words
