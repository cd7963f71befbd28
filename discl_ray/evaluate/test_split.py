"""The only code that opens the test images. Every opening is written into the run's ledger: when, by which commit, which config.

Nothing is chosen here: the model is the last one of its run.
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

from discl_ray.core.images import decode_image
from discl_ray.core.schema import METRICS
from discl_ray.core.storage import Store
from discl_ray.evaluate.metrics import top1_by_group
from discl_ray.train.loop import TrainJob, predict
from discl_ray.train.models import resnet10

LEDGER = "test_ledger.jsonl"


def commit() -> str:
    """The commit this code is at, or what DISCL_COMMIT says where there is no repository."""
    if "DISCL_COMMIT" in os.environ:
        return os.environ["DISCL_COMMIT"]
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def evaluate_test(
    job: TrainJob, weights: Mapping[str, Tensor], *, generated: Store, run: Store, config_hash: str
) -> dict[str, tuple[float, int]]:
    """Group -> (top-1 in percent, images) on the test split; writes METRICS and a line of the ledger into `run`."""
    test = generated.read_table("samples/test.parquet")
    opening = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "commit": commit(), "config": config_hash, "images": test.num_rows}
    earlier = run.read(LEDGER) if run.exists(LEDGER) else b""
    run.write(LEDGER, earlier + (json.dumps(opening) + "\n").encode())
    model = resnet10(num_classes=len(job.counts), width=job.train.width, seed=job.seed)
    model.load_state_dict(dict(weights))
    images = np.stack([decode_image(image["bytes"]) for image in test["image"].to_pylist()])
    result = top1_by_group(test["label"].to_numpy(), predict(model, images).argmax(1).numpy(), job.groups)
    rows = [
        {"run": run.base.rsplit("/", 1)[-1], "seed": job.seed, "epoch": job.train.epochs, "split": "test", "metric": "top1"}
        | {"group": group, "value": value, "n": n}
        for group, (value, n) in result.items()
    ]
    run.write_table("metrics.parquet", pa.Table.from_pylist(rows, schema=METRICS))
    return result
