import math

import pytest
from safetensors import safe_open

from discl_ray.core.weights import read_json
from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.model_folder import (
    WEIGHTED,
    find_model,
    model_files,
    weight_bytes,
    weight_files,
)
from discl_ray.generate.parts import parts_of


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere", "embeded", "a/b/c"])
def test_a_missing_folder_is_named_without_asking_the_hub(name, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub")
    )
    with pytest.raises(ModelError, match="no such folder") as caught:
        find_model(name)
    assert f"'{name}'" in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_a_model_error_with_the_way_out(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match="hf download owner/name"):
        find_model("owner/name")


def test_the_hub_is_never_asked_for_pickled_weights(monkeypatch, tmp_path):
    import huggingface_hub

    asked = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda model, **kw: asked.update(kw) or str(tmp_path)
    )
    assert find_model("owner/name", "abc") == tmp_path
    assert asked["revision"] == "abc"
    assert not [
        p for p in asked["allow_patterns"] if p.endswith((".bin", ".ckpt", ".pt", "*", ".py"))
    ]


def test_the_refiner_has_no_first_text_encoder():
    index = {
        "_class_name": "StableDiffusionXLImg2ImgPipeline",
        "text_encoder": [None, None],
        "tokenizer": [None, None],
    }
    assert parts_of(index) == ("unet", "vae", "scheduler", "text_encoder_2", "tokenizer_2")
    base = {
        "_class_name": "StableDiffusionXLPipeline",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["t", "T"],
    }
    assert parts_of(base) == (
        "unet",
        "vae",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
    )
    assert set(WEIGHTED) & set(parts_of(read_json(GENERATOR / "model_index.json"))) == {
        "unet",
        "vae",
        "text_encoder",
    }


def numbers_in(file):
    with safe_open(file, framework="numpy") as weights:
        names = weights.keys()
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in names)


def test_memory_is_two_bytes_a_number_less_in_half_precision():
    single = GeneratorConfig(dtype="float32", vae_dtype="float32")
    half = GeneratorConfig(dtype="bfloat16", vae_dtype="float32")
    (unet,) = weight_files(GENERATOR, "unet", None)
    saved = weight_bytes(single, GENERATOR) - weight_bytes(half, GENERATOR)
    assert saved == 2 * numbers_in(unet)
    files = [weight_files(GENERATOR, part, None)[0] for part in ("unet", "vae", "text_encoder")]
    assert weight_bytes(single, GENERATOR) == 4 * sum(map(numbers_in, files))


def test_the_files_of_a_model_are_its_configs_and_one_variants_weights():
    names = set(model_files(GENERATOR, None))
    assert {"model_index.json", "unet/config.json"} <= names
    assert [name for name in names if name.startswith("vae/") and name.endswith(".safetensors")]
    fp16 = model_files(GENERATOR, "fp16")
    assert not [name for name in fp16 if name.endswith(".safetensors")]
