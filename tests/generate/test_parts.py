import json

import pytest

from discl_ray.core.weights import read_json
from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
from discl_ray.generate.parts import check_parts, parts_of, text_config, text_parts
from tests.generate.families import make_folder


@pytest.fixture(scope="module")
def refiner(tmp_path_factory):
    return make_folder("sdxl-refiner", tmp_path_factory.mktemp("refiner"))


def index_of(folder):
    return read_json(folder / "model_index.json")


def test_stable_diffusion_has_one_text_encoder():
    assert parts_of(index_of(GENERATOR)) == (
        "unet",
        "vae",
        "scheduler",
        "text_encoder",
        "tokenizer",
    )
    assert text_parts(index_of(GENERATOR)) == (["text_encoder"], ["tokenizer"])


def test_the_refiner_has_no_first_text_encoder(refiner):
    assert text_parts(index_of(refiner)) == (["text_encoder_2"], ["tokenizer_2"])
    both = {
        "_class_name": "StableDiffusionXLPipeline",
        "text_encoder": ["t", "C"],
        "tokenizer": ["t", "C"],
    }
    assert text_parts(both) == (["text_encoder", "text_encoder_2"], ["tokenizer", "tokenizer_2"])


def test_parts_that_fit_pass(refiner):
    check_parts(GENERATOR, index_of(GENERATOR))
    check_parts(refiner, index_of(refiner))


def test_a_part_of_another_class_is_named():
    index = {**index_of(GENERATOR), "unet": ["diffusers", "UNet3DConditionModel"]}
    with pytest.raises(ModelError, match=r"unet = 'UNet3DConditionModel'; allowed: UNet2DCond"):
        check_parts(GENERATOR, index)


def test_a_whole_clips_text_settings_are_found(tmp_path):
    whole = {"model_type": "clip", "text_config": {"hidden_size": 32}, "projection_dim": 8}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    assert text_config(tmp_path)["hidden_size"] == 32
    assert text_config(tmp_path)["projection_dim"] == 8
