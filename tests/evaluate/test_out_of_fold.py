"""Classifiers of folds: each row is judged by the one that did not see it, whatever Ray does."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch

from discl_ray.core.images import encode_image
from discl_ray.core.schema import PREDICTIONS, SAMPLES
from discl_ray.errors import ConfigError, DisclError
from discl_ray.evaluate.out_of_fold import Decode, FoldActor, fold_job, train_fold, train_folds
from discl_ray.train.augment.config import AugmentConfig
from discl_ray.train.config import TrainConfig
from discl_ray.train.loop import predictor_of

SIDE = 8
SMALL = TrainConfig(
    width=4,
    image_size=SIDE,
    start_steps=60,
    batch=8,
    start_learning_rate=1e-2,
    augment=AugmentConfig(shift=0),
    threads=1,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def colours(count=24):
    """SAMPLES of dark and bright images, the last one under the wrong label, one unreadable."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        stripes = np.indices((12, 10))[i % 2] % 2 * 120
        pixels = (stripes[..., None] + rng.integers(0, 60, (12, 10, 3))).astype(np.uint8)
        rows.append(
            {
                "sample_id": f"s{i:02d}",
                "label": i % 2,
                "image": {"bytes": encode_image(pixels, "png")},
            }
        )
    rows[-1]["label"] = 0
    rows[3]["image"] = {"bytes": b"no image"}
    return pa.Table.from_pylist(
        rows, schema=pa.schema([SAMPLES.field(n) for n in ("sample_id", "label", "image")])
    )


@pytest.fixture(scope="module")
def decoded():
    return Decode(SIDE)(colours())


JOB = fold_job(SMALL, seed=3, classes=2)
FOLDS = {f"s{i:02d}": i % 3 for i in range(18)}
"""The last six are val."""


@pytest.fixture(scope="module")
def weights(decoded):
    ids = decoded["sample_id"].to_pylist()
    return [
        train_fold(JOB, decoded.filter(pa.array([FOLDS.get(s, n) != n for s in ids])))
        for n in range(3)
    ]


def test_images_are_brought_to_one_size_and_a_broken_one_is_null(decoded):
    raw = decoded["raw"].to_pylist()
    assert [i for i, r in enumerate(raw) if r is None] == [3]
    assert {len(r) for r in raw if r is not None} == {SIDE * SIDE * 3}


def test_training_does_not_depend_on_the_order_of_rows_and_needs_steps(decoded):
    part = decoded.slice(0, 12)
    first = train_fold(JOB, part)
    again = train_fold(JOB, part.take(pa.array(np.random.default_rng(0).permutation(12))))
    assert all(torch.equal(first[name], again[name]) for name in first)
    with pytest.raises(ConfigError, match=r"train\.start_steps = 0"):
        fold_job(SMALL.model_copy(update={"start_steps": 0}), seed=0, classes=2)


def test_each_row_is_judged_by_the_model_that_did_not_see_it_and_val_by_all(decoded, weights):
    found = FoldActor(JOB, weights, FOLDS, "r")(decoded)
    assert found.schema.equals(PREDICTIONS)
    probabilities = []
    for one in weights:
        images = [
            np.frombuffer(r or bytes(SIDE * SIDE * 3), np.uint8).reshape(SIDE, SIDE, 3)
            for r in decoded["raw"].to_pylist()
        ]
        probabilities.append(predictor_of(JOB, one)(np.stack(images)).numpy())
    for i, row in enumerate(found.to_pylist()):
        assert row["fold"] == FOLDS.get(row["sample_id"], -1)
        if i == 3:
            assert (row["prob_true"], row["pred"], row["prob_pred"]) == (None, None, None)
            continue
        expected = (
            np.mean(probabilities, 0)[i] if row["fold"] == -1 else probabilities[row["fold"]][i]
        )
        assert row["prob_true"] == pytest.approx(expected[row["label"]], abs=1e-5)
        assert (row["pred"], row["prob_pred"]) == (
            expected.argmax(),
            pytest.approx(expected.max(), abs=1e-5),
        )
    wrong = found.to_pylist()[-1]
    assert wrong["pred"] == 1  # what was mislabelled is not believed
    assert (
        Counter(r["pred"] == r["label"] for r in found.to_pylist() if r["pred"] is not None)[False]
        == 1
    )


def test_ray_trains_the_same_weights_from_blocks(decoded, weights, ray_local):
    import ray

    blocks = [ray.put(decoded.slice(i, 7)) for i in (14, 0, 7, 21)]
    made = dict(train_folds(JOB, blocks, FOLDS, 3))
    ids = decoded["sample_id"].to_pylist()
    seen = decoded.filter(pa.array([FOLDS.get(s, 1) != 1 for s in ids]))
    expected = train_fold(JOB, seen)
    assert set(made) == {0, 1, 2}
    assert all(torch.equal(made[1][name], expected[name]) for name in expected)


def test_a_fold_that_diverges_ends_the_job_with_its_reason(decoded, ray_local):
    import ray

    job = fold_job(SMALL.model_copy(update={"start_learning_rate": 1e30}), seed=0, classes=2)
    with pytest.raises(
        DisclError, match=r"the loss is (nan|inf); lower train\.learning_rate"
    ) as caught:
        list(train_folds(job, [ray.put(decoded)], FOLDS, 2))
    assert "Traceback" not in str(caught.value)
