"""The test images: what is opened is written down, and what is predicted is scored."""

import json
import subprocess

import numpy as np
import pyarrow as pa
import pytest
import torch

from discl_ray.core.images import encode_image
from discl_ray.core.schema import METRICS, SAMPLES
from discl_ray.core.storage import Store
from discl_ray.evaluate import held_out
from discl_ray.evaluate.held_out import LEDGER, PREDICTED, SCORED, commit, evaluate_test
from discl_ray.experiments.cells import fresh
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.loop import predictor_of
from tests.support.runs import ROOT
from tests.train.tiny import SIDE, make_job, make_pixels

LABELS = np.arange(20) % 4


@pytest.fixture
def spectrum(tmp_path):
    """A spectrum that has nothing but test images."""
    store = Store.at(tmp_path / "samples")
    pixels = make_pixels(len(LABELS), LABELS)
    rows = []
    for number, label in enumerate(LABELS.tolist()):
        row = dict.fromkeys(SAMPLES.names)
        row |= {"sample_id": f"t{number}", "label": label, "split": "test"}
        row |= {"image": {"bytes": encode_image(pixels[number], "png"), "path": None}}
        rows.append(row | {"width": SIDE, "height": SIDE, "class_name": str(label)})
    store.write_table("test/part-0.parquet", pa.Table.from_pylist(rows, schema=SAMPLES))
    return Spectrum(store=store, samples=store, classes=tuple("0123"))


def test_each_opening_is_a_line_of_the_ledger_and_predictions_are_scored(
    spectrum, tmp_path, monkeypatch
):
    monkeypatch.setattr(held_out, "CHUNK", 7)
    monkeypatch.setenv("DISCL_COMMIT", "abc1234")
    job, run = make_job(), Store.at(tmp_path / "run")
    weights = fresh(job)
    for number in (1, 2):
        found = evaluate_test(job, weights, spectrum=spectrum, run=run, config_hash="h")
        lines = [json.loads(line) for line in run.read(LEDGER).decode().splitlines()]
        assert len(lines) == number
        assert (lines[-1]["commit"], lines[-1]["config"], lines[-1]["images"]) == (
            "abc1234",
            "h",
            20,
        )
    predicted = run.read_table(PREDICTED)
    expected = predictor_of(job, weights)(make_pixels(len(LABELS), LABELS)).argmax(1).numpy()
    assert predicted["pred"].to_pylist() == expected.tolist()
    assert predicted["label"].to_pylist() == LABELS.tolist()
    metrics = run.read_table(SCORED)
    assert metrics.schema.equals(METRICS)
    by_group = {row["group"]: row for row in metrics.to_pylist() if row["metric"] == "top1"}
    assert by_group["overall"]["value"] == pytest.approx(100 * (expected == LABELS).mean())
    assert by_group["overall"]["n"] == 20
    assert found["top1", "overall"] == (by_group["overall"]["value"], 20)


def test_an_adjustment_favours_rare_classes(spectrum, tmp_path):
    job, run = make_job(), Store.at(tmp_path / "run")
    weights = {name: torch.zeros_like(value) for name, value in fresh(job).items()}
    evaluate_test(job, weights, spectrum=spectrum, run=run, config_hash="h", post_hoc=1.0)
    rarest = int(np.argmin(job.counts))  # all classes are equally likely before the adjustment
    assert set(run.read_table(PREDICTED)["pred"].to_pylist()) == {rarest}


def test_the_commit_is_what_the_environment_says_else_gits(monkeypatch):
    monkeypatch.setenv("DISCL_COMMIT", "deployed")
    assert commit() == "deployed"
    monkeypatch.delenv("DISCL_COMMIT")
    git = subprocess.run(
        "git rev-parse --short HEAD", shell=True, cwd=ROOT, capture_output=True, text=True
    )
    assert commit() == (git.stdout.strip() or "unknown")
