"""Hardness by confidence: predicted once, in the order of SAMPLES, and named by what decides it."""

import numpy as np
import pyarrow as pa
import pytest

from discl_ray.core.run_directory import MANIFEST, run_store
from discl_ray.core.schema import PREDICTIONS
from discl_ray.data import read_samples
from discl_ray.experiments.identify import identify, in_order
from discl_ray.plan.prompts import load_prompts
from discl_ray.synthesize.run import predictions_store
from tests.support.runs import tiny_config


@pytest.mark.parametrize("method", ["zero_shot", "out_of_fold"])
def test_predictions_are_made_once_in_the_order_of_samples(method, ray_local, tmp_path) -> None:
    words = ["hard.rule=confidence", f"hard.method={method}", "hard.folds=3"]
    config = tiny_config(tmp_path, *words, "train.width=4", "train.start_steps=4")
    store = run_store(config.run.root, config.run.name, "")
    samples = read_samples(config.data, config.seed, store)
    prompts = load_prompts(config.prompts)
    found = identify(config, samples, prompts)
    assert found.schema.equals(PREDICTIONS)
    rows = [row for row in samples.table.to_pylist() if row["split"] in ("train", "val")]
    assert found["sample_id"].to_pylist() == [row["sample_id"] for row in rows]
    assert found["prob_true"].null_count == 0
    val = np.array([row["split"] == "val" for row in rows])
    if method == "out_of_fold":
        np.testing.assert_array_equal(found["fold"].to_numpy() == -1, val)
    place = predictions_store(config, samples, prompts)
    assert place.read_json(MANIFEST)["rows"] == len(rows)
    again = identify(config, samples, prompts, lambda *_: pytest.fail("predicted again"))
    assert again.equals(found)
    shuffled = found.take(pa.array(np.random.default_rng(0).permutation(len(rows))))
    assert in_order(shuffled, samples).equals(found)
