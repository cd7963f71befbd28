"""Small SAMPLES, and PREDICTIONS of them."""

import pyarrow as pa

from discl_ray.core.schema import PREDICTIONS, SAMPLES
from discl_ray.plan.config import HardConfig

NAMES = ("ant", "bee", "empty")


def samples_of(rows):
    """SAMPLES of (id, label, split)."""
    return pa.Table.from_pylist(
        [
            {"sample_id": s, "label": c, "class_name": NAMES[c], "split": split}
            for s, c, split in rows
        ],
        schema=SAMPLES,
    )


def predictions_of(samples, guesses):
    """PREDICTIONS from id -> prob_true, or (pred, prob_pred, prob_true), or None."""
    rows = []
    for row in samples.to_pylist():
        guess = guesses.get(row["sample_id"])
        pred, sure, own = guess if isinstance(guess, tuple) else (row["label"], guess, guess)
        rows.append(
            {
                "sample_id": row["sample_id"],
                "label": row["label"],
                "prob_true": own,
                "pred": pred,
                "prob_pred": sure,
            }
            | {"fold": -1, "scorer": "s"}
        )
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def confident(**config):
    return HardConfig.model_validate({"rule": "confidence", **config})


TRAIN = samples_of([(f"t{i}", i % 2, "train") for i in range(10)])

OWN = {f"t{i}": (i + 1) / 20 for i in range(10)}
