"""The only code that opens the test images. Every opening is written into the run's ledger: when, by which commit, which config.

Nothing is chosen here: weights, ensembling and adjustment are decided before.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from torch import Tensor

from discl_ray.core.metrics import Scores, adjusted, scores
from discl_ray.core.schema import METRICS
from discl_ray.core.storage import Store
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.images.segments import load_pixels
from discl_ray.train.learners.learner import TrainJob
from discl_ray.train.loop import predictor_of

LEDGER = "test_ledger.jsonl"

PREDICTED = "test_predictions.parquet"

SCORED = "metrics.parquet"

CHUNK = 1024
"""Images held decoded at once."""


def commit() -> str:
    """The commit this code is at, or what DISCL_COMMIT says where there is no repository."""
    if "DISCL_COMMIT" in os.environ:
        return os.environ["DISCL_COMMIT"]
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def evaluate_test(
    job: TrainJob,
    weights: Mapping[str, Tensor],
    *,
    spectrum: Spectrum,
    run: Store,
    config_hash: str,
    post_hoc: float = 0.0,
    device: str | None = None,
) -> Scores:
    """Scores on the test split; writes METRICS, what was predicted, and a line of the ledger into `run`.

    `post_hoc` is the τ of a logit adjustment by the training classes' frequencies; 0 adjusts nothing. `device` is what predicts, if
    it is not what the job's process has reserved.
    """
    predict = predictor_of(job, weights, device)
    test = spectrum.split("test", ["image", "label", "domain"])
    opening = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit(),
        "config": config_hash,
        "images": test.num_rows,
    }
    earlier = run.read(LEDGER) if run.exists(LEDGER) else b""
    run.write(LEDGER, earlier + (json.dumps(opening) + "\n").encode())
    parts = []
    for begin in range(0, test.num_rows, CHUNK):
        images = test["image"].slice(begin, CHUNK).to_pylist()
        parts.append(
            predict(
                np.stack([load_pixels(image, job.train.image_size) for image in images])
            ).numpy()
        )
    probabilities = np.concatenate([np.zeros((0, len(job.counts)), np.float32), *parts]).astype(
        np.float64
    )
    predicted = adjusted(probabilities, np.array(job.counts), post_hoc)
    domain = np.array([d or "" for d in test["domain"].to_pylist()])
    result = scores(test["label"].to_numpy(), predicted, job.groups, domain)
    rows = [
        {"run": run.name, "seed": job.seed, "epoch": job.train.epochs, "split": "test"}
        | {"metric": metric, "group": group, "value": value, "n": n}
        for (metric, group), (value, n) in result.items()
    ]
    run.write_table(
        PREDICTED,
        pa.table({"label": test["label"], "pred": pa.array(predicted), "domain": pa.array(domain)}),
    )
    run.write_table(SCORED, pa.Table.from_pylist(rows, schema=METRICS))
    return result
