"""How the generator is trained, and that what is saved is a Stable Diffusion folder."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from discl_ray.embedded import GENERATOR
from discl_ray.embedded.digits import CAPTIONS, SIDE, caption, web_images
from discl_ray.embedded.generator import (
    as_tensor,
    captions_of,
    draw_captions,
    moments_of,
    new_scheduler,
    new_text_encoder,
    new_unet,
    new_vae,
    save_generator,
    tokenize,
    train_unet,
    train_vae,
)
from discl_ray.embedded.tokenizer import CONTEXT


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(GENERATOR / "tokenizer")


@pytest.fixture(scope="module")
def web():
    return web_images(32, seed=1)


def test_pixels_become_the_vaes_range():
    images = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(3, axis=3)
    tensor = as_tensor(images)
    assert tensor.shape == (1, 3, 1, 2)
    assert tensor[0, 0, 0].tolist() == [-1, 1]


def test_captions_are_true_and_drawn_from_all_templates(web):
    index = torch.arange(32)
    templates = [number % len(CAPTIONS) for number in range(32)]
    expected = [
        caption(template, int(web.labels[number]), web.words[number])
        for number, template in enumerate(templates)
    ]
    assert captions_of(web, index, templates) == expected
    many = torch.zeros(400, dtype=torch.long)
    drawn = draw_captions(web, many, torch.Generator().manual_seed(0))
    possible = {caption(template, int(web.labels[0]), web.words[0]) for template in range(8)}
    assert set(drawn) == possible


def test_captions_are_tokens_of_one_length(tokenizer):
    tokens = tokenize(tokenizer, ["a photo of the digit seven", ""])
    assert tokens.shape == (2, CONTEXT)
    assert tokens[1, 1] == tokenizer.eos_token_id


def test_the_committed_models_are_of_these_shapes(tokenizer):
    pipeline = StableDiffusionPipeline.from_pretrained(GENERATOR, safety_checker=None)
    for made, committed in (
        (new_vae(), pipeline.vae),
        (new_unet(), pipeline.unet),
        (new_text_encoder(tokenizer), pipeline.text_encoder),
    ):
        shapes = {name: value.shape for name, value in made.state_dict().items()}
        assert shapes == {name: value.shape for name, value in committed.state_dict().items()}
    assert new_scheduler().alphas_cumprod.equal(pipeline.scheduler.alphas_cumprod)


def test_moments_are_scaled_to_about_unit_variance(web):
    pipeline = StableDiffusionPipeline.from_pretrained(GENERATOR, safety_checker=None)
    mean, std = moments_of(pipeline.vae, as_tensor(web.images))
    assert mean.shape == std.shape == (32, 4, SIDE // 4, SIDE // 4)
    assert float(mean.std()) == pytest.approx(1.0, abs=0.2)
    assert (std > 0).all()


def test_what_is_trained_and_saved_is_a_folder_that_diffusers_loads(web, tokenizer, tmp_path):
    records = []
    options = {"steps": 2, "seed": 1, "work": tmp_path, "log": records.append, "batch": 8}
    vae = train_vae(web, **options)
    assert vae.config["scaling_factor"] > 0
    model = train_unet(web, vae, tokenizer, **options)
    assert [record["part"] for record in records] == ["vae", "unet"]
    tokens = tokenize(tokenizer, ["the digit two"])
    assert model(torch.zeros(1, 4, 8, 8), torch.tensor([3]), tokens).shape == (1, 4, 8, 8)
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    save_generator(vae, model, tokenizer, tmp_path / "folder")
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "folder", safety_checker=None)
    state = loaded.unet.state_dict()
    assert all(torch.equal(value.half().float(), state[name]) for name, value in before.items())
