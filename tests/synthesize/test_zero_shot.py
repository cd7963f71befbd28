"""Zero-shot predictions of a run's real images, made in blocks by actors."""

import numpy as np
import pytest

from discl_ray.cluster.predicting import predicted_rows
from discl_ray.core.run_directory import run_store
from discl_ray.core.schema import PREDICTIONS
from discl_ray.data import read_samples
from discl_ray.plan.prompts import load_prompts
from discl_ray.score.model_folder import scorer_fingerprint
from discl_ray.score.zero_shot import ZeroShotActor
from discl_ray.synthesize.zero_shot import predict_zero_shot
from tests.support.runs import tiny_config

pytestmark = pytest.mark.timeout(600)


def test_blocks_give_each_image_of_train_and_val_the_prediction_of_one_scorer(ray_local, tmp_path):
    config = tiny_config(tmp_path)
    prompts = load_prompts(config.prompts)
    runs = run_store(config.run.root, config.run.name, "")
    samples = read_samples(config.data, config.seed, runs, num_cpus=config.run.num_cpus)
    found = predict_zero_shot(config, samples, prompts)
    assert found.schema.equals(PREDICTIONS)
    wanted = predicted_rows(samples.table)["sample_id"].to_pylist()
    assert sorted(found["sample_id"].to_pylist()) == sorted(wanted)  # each once, none of test
    assert set(found["scorer"].to_pylist()) == {scorer_fingerprint(config.scorer)[:16]}
    texts = [prompts.filter(name) for name in samples.classes]
    actor = ZeroShotActor(config.scorer, texts, "alone")
    names = [*samples.store.list("train", ".parquet"), *samples.store.list("val", ".parquet")]
    alone = {}
    for name in names:
        for row in actor(samples.store.read_table(name)).to_pylist():
            alone[row["sample_id"]] = row
    rows = found.to_pylist()
    assert [row["pred"] for row in rows] == [alone[row["sample_id"]]["pred"] for row in rows]
    probabilities = [row["prob_true"] for row in rows]
    expected = [alone[row["sample_id"]]["prob_true"] for row in rows]
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
