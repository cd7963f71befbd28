"""Hardness by confidence: SAMPLES -> PREDICTIONS, in a folder named by all that decides them.

    <run>/predictions-<hash8>/predictions.parquet    PREDICTIONS of train and val, never test
    <run>/predictions-<hash8>/MANIFEST.json          written last

Out-of-fold hardness trains classifiers in order to plan images: the one place where phase 1 needs
phase 2. The two methods know nothing of each other; only this package may import both.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from discl_ray.cluster.predicting import predicted_rows
from discl_ray.config import Config
from discl_ray.core import columns
from discl_ray.core.run_directory import MANIFEST, locked
from discl_ray.data import Samples
from discl_ray.plan.guesses import PREDICTIONS_FILE, read_predictions
from discl_ray.plan.prompts import Prompts
from discl_ray.synthesize.run import predictions_store


def predict(config: Config, samples: Samples, prompts: Prompts, folder: str) -> pa.Table:
    """PREDICTIONS block by block; imports what the method needs and nothing else."""
    if config.hard.method == "zero_shot":
        from discl_ray.synthesize.zero_shot import predict_zero_shot

        return predict_zero_shot(config, samples, prompts)
    from discl_ray.evaluate.out_of_fold import predict_out_of_fold

    # the classifiers are named by the hash of the folder, which stands for all that decides them
    return predict_out_of_fold(config, samples, folder.rpartition("-")[2])


def identify(
    config: Config,
    samples: Samples,
    prompts: Prompts,
    predict: Callable[[Config, Samples, Prompts, str], pa.Table] = predict,
) -> pa.Table:
    """PREDICTIONS of all train and val images by `hard.method`; predicts only what is not on disk.

    Raises ModelError, ConfigError or DataError if the method cannot be used, DisclError if a
    training diverged.
    """
    store = predictions_store(config, samples, prompts)
    with locked(store):
        if not (store.sound(MANIFEST) and store.sound(PREDICTIONS_FILE)):
            table = in_order(predict(config, samples, prompts, store.name), samples)
            store.write_table(PREDICTIONS_FILE, table)
            manifest = {
                "method": config.hard.method,
                "rows": table.num_rows,
                "unread": table["prob_true"].null_count,
                "samples": samples.fingerprint,
            }
            store.write_json(MANIFEST, manifest)
    return read_predictions(store)


def in_order(predictions: pa.Table, samples: Samples) -> pa.Table:
    """PREDICTIONS in the order of SAMPLES: blocks come in the order in which they are done."""
    wanted = predicted_rows(samples.table)["sample_id"]
    found = predictions["sample_id"].combine_chunks()
    return predictions.take(columns.places_in(wanted, found))
