"""Which captions are true of which images, and the loss that rewards them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from discl_ray.embedded import SCORER
from discl_ray.embedded.digits import SIDE, WebImages, web_images
from discl_ray.embedded.scorer import (
    contrastive_loss,
    model_config,
    save_scorer,
    train_scorer,
    truth,
)


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(SCORER)


def test_a_caption_is_true_of_every_image_that_it_fits():
    words = [
        {"ink": "red", "ground": "blue"},
        {"ink": "red", "ground": "white"},
        {"ink": "pink", "ground": "blue"},
        {"ink": "red", "ground": "blue"},
    ]
    blank = np.zeros((4, SIDE, SIDE, 3), np.uint8)
    web = WebImages(images=blank, labels=np.array([7, 7, 7, 1]), words=words)
    plain, of_ink, of_both = 0, 4, 6  # numbers of templates
    found = truth(web, torch.arange(4), [plain, of_ink, of_both, plain])
    assert found.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


def test_the_loss_is_clips_where_each_caption_is_true_of_one_image_alone():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5)
    by_image = torch.nn.functional.cross_entropy(logits, labels)
    by_text = torch.nn.functional.cross_entropy(logits.T, labels)
    assert contrastive_loss(logits, torch.eye(5)) == pytest.approx(float(by_image + by_text) / 2)
    shared = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert float(contrastive_loss(torch.zeros(2, 2), shared)) == pytest.approx(np.log(2))


def test_training_lowers_the_loss_and_what_is_saved_is_loaded_by_open_clip(tokenizer, tmp_path):
    import open_clip

    records = []
    web = web_images(64, seed=1)
    options = {"steps": 2, "seed": 1, "work": tmp_path, "log": records.append, "batch": 16}
    model = train_scorer(web, tokenizer, name="small", **options)
    assert records[-1]["part"] == "small"
    folder = tmp_path / "folder"
    save_scorer(model, tokenizer, folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    assert config["model_cfg"] == model_config(tokenizer)
    state = load_file(folder / "open_clip_model.safetensors")
    assert state["visual.conv1.weight"].dtype == torch.float16
    loaded = open_clip.create_model(f"local-dir:{folder}")
    saved = model.state_dict()["visual.conv1.weight"].half().float()
    assert torch.equal(loaded.state_dict()["visual.conv1.weight"], saved)


def test_the_committed_scorer_has_this_configuration(tokenizer):
    config = json.loads((SCORER / "open_clip_config.json").read_text())
    assert config["model_cfg"] == model_config(tokenizer)
