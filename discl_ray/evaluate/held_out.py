"""The only code that opens the test images; each opening is a line in the run's ledger.

Nothing is chosen here: weights, ensembling and adjustment are decided before.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
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
"""Images that are decoded at a time."""


def commit() -> str:
    """The short hash of this code's commit: DISCL_COMMIT, else git's, else `unknown`."""
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
    """Scores on the test split; writes METRICS, predictions and a line of the ledger into `run`.

    `post_hoc` is the τ of a logit adjustment by the training classes' frequencies; 0 adjusts
    nothing. `device` is where to predict, by default what the job's process has reserved.
    """
    predict = predictor_of(job, weights, device)
    test = spectrum.split("test", ["image", "label", "domain"])
    _note_opening(run, config_hash, images=test.num_rows)  # before an image is read
    probabilities = _probabilities(predict, test["image"], job)
    counts = np.array(job.counts)
    predicted = adjusted(probabilities, counts, post_hoc)
    domains = test["domain"].to_pylist()
    domain = np.array([name or "" for name in domains])
    label = test["label"].to_numpy()
    result = scores(label, predicted, job.groups, domain)
    predictions = pa.table(
        {"label": test["label"], "pred": pa.array(predicted), "domain": pa.array(domain)}
    )
    run.write_table(PREDICTED, predictions)
    metrics = _metrics(result, job, run.name)
    run.write_table(SCORED, metrics)
    return result


def _note_opening(run: Store, config_hash: str, *, images: int) -> None:
    """Appends a line to the ledger: when, by which commit, with which configuration, how many."""
    opening = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit(),
        "config": config_hash,
        "images": images,
    }
    earlier = run.read(LEDGER) if run.exists(LEDGER) else b""
    line = json.dumps(opening) + "\n"
    run.write(LEDGER, earlier + line.encode())


def _probabilities(
    predict: Callable[[NDArray[np.uint8]], Tensor], images: pa.ChunkedArray, job: TrainJob
) -> NDArray[np.float64]:
    """Class probabilities of stored images, shape (N, classes); CHUNK are decoded at a time."""
    classes, side = len(job.counts), job.train.image_size
    parts = [np.zeros((0, classes), np.float32)]  # a test split may be empty
    for begin in range(0, len(images), CHUNK):
        chunk = images.slice(begin, CHUNK).to_pylist()
        pixels = [load_pixels(image, side) for image in chunk]
        predicted = predict(np.stack(pixels))
        parts.append(predicted.numpy())
    return np.concatenate(parts).astype(np.float64)


def _metrics(result: Scores, job: TrainJob, run: str) -> pa.Table:
    """METRICS of one run's scores."""
    rows = []
    for (metric, group), (value, count) in result.items():
        rows.append(
            {
                "run": run,
                "seed": job.seed,
                "epoch": job.train.epochs,
                "split": "test",
                "metric": metric,
                "group": group,
                "value": value,
                "n": count,
            }
        )
    return pa.Table.from_pylist(rows, schema=METRICS)
