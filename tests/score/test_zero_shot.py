import numpy as np
import pyarrow as pa
import pytest
import torch

from discl_ray.core.images import encode_image
from discl_ray.core.schema import PREDICTIONS, SAMPLES
from discl_ray.embedded.digits import NAMES, render, scans_of
from discl_ray.score.clip import ClipScorer
from discl_ray.score.config import ScorerConfig
from discl_ray.score.zero_shot import ZeroShotActor

PROMPTS = [f"a photo of the digit {name}" for name in NAMES]
SCANS = scans_of((8,))[:12]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def actor():
    return ZeroShotActor(ScorerConfig(batch=5), PROMPTS, "print")


def samples_of(images):
    rows = [
        {"sample_id": f"s{i}", "label": scan.label, "image": image}
        for i, (scan, image) in enumerate(zip(SCANS, images, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=SAMPLES)


@pytest.fixture(scope="module")
def images():
    return [{"bytes": encode_image(render(scan, "web", i), "png")} for i, scan in enumerate(SCANS)]


def test_the_probabilities_are_those_of_the_models_own_softmax(actor, images):
    found = actor(samples_of(images))
    assert found.schema.equals(PREDICTIONS)
    scorer = ClipScorer(ScorerConfig())
    with torch.no_grad():
        pixels = scorer.pixels([render(scan, "web", i) for i, scan in enumerate(SCANS)])
        image, text, scale = scorer.model(pixels, scorer.tokenizer(PROMPTS))[
            :3
        ]  # open_clip's own forward
        expected = (scale * image @ text.T).softmax(1).numpy()
    for row, scan, p in zip(found.to_pylist(), SCANS, expected, strict=True):
        assert row["prob_true"] == pytest.approx(p[scan.label], abs=1e-4)
        assert (row["pred"], row["prob_pred"]) == (p.argmax(), pytest.approx(p.max(), abs=1e-4))
        assert (row["label"], row["fold"], row["scorer"]) == (scan.label, -1, "print")
    assert np.mean(found["pred"].to_numpy() == found["label"].to_numpy()) > 0.8


def test_what_cannot_be_read_any_more_has_nulls_and_moves_nobody(actor, images, tmp_path):
    (tmp_path / "a.png").write_bytes(images[0]["bytes"])
    mixed = [
        {"path": str(tmp_path / "a.png")},
        {"bytes": b"broken"},
        *images[2:4],
        {"path": str(tmp_path / "gone.png")},
    ]
    mixed += images[5:]
    whole, found = actor(samples_of(images)).to_pylist(), actor(samples_of(mixed)).to_pylist()
    for i, (row, before) in enumerate(zip(found, whole, strict=True)):
        assert row["sample_id"] == before["sample_id"]
        if i in (1, 4):
            assert (row["prob_true"], row["pred"], row["prob_pred"]) == (None, None, None)
        else:
            assert row["prob_true"] == pytest.approx(before["prob_true"], abs=1e-5)
    nothing = actor(samples_of([{"bytes": b""}] * len(SCANS)))
    assert nothing["prob_true"].null_count == len(SCANS)
