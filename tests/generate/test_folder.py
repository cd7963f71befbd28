import json
import shutil
from pathlib import Path

import pytest

from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.folder import (
    WEIGHTED,
    check_folder,
    count_truncated,
    find_model,
    fingerprint,
    native_side,
    parts_of,
    read_json,
    working_size,
)


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(GENERATOR, tmp_path / "model"))


def refusal(folder):
    with pytest.raises(ModelError) as caught:
        check_folder(folder)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_embedded_folder_and_its_copy_are_accepted(folder):
    check_folder(find_model("embedded"))
    assert find_model(str(folder)) == folder
    check_folder(folder)


@pytest.mark.parametrize("part", ["scheduler", "text_encoder", "tokenizer", "unet", "vae"])
def test_a_missing_part_is_named(folder, part):
    shutil.rmtree(folder / part)
    assert f"part '{part}' is missing" in refusal(folder)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_pickled_weights_are_not_enough(folder, part):
    for file in (folder / part).glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    message = refusal(folder)
    assert str(folder / part) in message
    assert "safetensors" in message


def test_another_family_is_named(folder):
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "FluxPipeline"}))
    assert "_class_name = 'FluxPipeline'" in refusal(folder)


def test_a_folder_without_an_index_is_named(folder):
    (folder / "model_index.json").unlink()
    assert f"{folder}: no model_index.json" in refusal(folder)


def test_an_index_that_is_no_json_is_named(folder):
    (folder / "model_index.json").write_text('{"_class_name": "Stable')
    assert "model_index.json" in refusal(folder)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere", "embeded", "a/b/c"])
def test_a_missing_folder_is_named_without_asking_the_hub(name, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
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
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda model, **kw: asked.update(kw) or str(tmp_path))
    assert find_model("owner/name", "abc") == tmp_path
    assert asked["revision"] == "abc"
    assert not [p for p in asked["allow_patterns"] if p.endswith((".bin", ".ckpt", ".pt", "*", ".py"))]


def test_the_fingerprint_sees_weights_and_settings_but_not_how_it_runs(folder):
    base = fingerprint(GeneratorConfig(), folder, 30)
    assert fingerprint(GeneratorConfig(), GENERATOR, 30) == base
    same = GeneratorConfig(
        micro_batch=1, actors=3, threads=7, decode_batch=2, num_gpus=1, model="elsewhere", shards_in_flight=5
    )
    assert fingerprint(same, folder, 30) == base
    prints = {base, fingerprint(GeneratorConfig(), folder, 31)}
    changes = [
        {"cfg_scale": 5.0}, {"dtype": "bfloat16"}, {"codec": "webp"}, {"codec": "jpeg"}, {"codec": "jpeg", "quality": 80},
        {"sampler": "euler"}, {"size": 64}, {"fit": "crop"}, {"text_only": True}, {"vae_dtype": "bfloat16"}, {"compile": "default"},
    ]  # fmt: skip
    for change in changes:
        prints.add(fingerprint(GeneratorConfig(**change), folder, 30))
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    prints.add(fingerprint(GeneratorConfig(), folder, 30))
    assert len(prints) == 3 + len(changes)


def test_a_stray_file_of_another_variant_does_not_change_the_fingerprint(folder):
    base = fingerprint(GeneratorConfig(), folder, 30)
    shutil.copy(folder / "unet/diffusion_pytorch_model.safetensors", folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    (folder / "README.md").write_text("x")
    assert fingerprint(GeneratorConfig(), folder, 30) == base
    for part in ("vae", "text_encoder"):
        name = next((folder / part).glob("*.safetensors"))
        shutil.copy(name, name.with_suffix(".fp16.safetensors"))
    assert fingerprint(GeneratorConfig(variant="fp16"), folder, 30) != base


def test_a_variant_that_is_not_there_is_named(folder):
    with pytest.raises(ModelError, match=r"nothing of generator\.variant = fp16"):
        check_folder(folder, "fp16")


def test_sharded_weights_are_weights(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model-00001-of-00001.safetensors"))
    check_folder(folder)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"\xff" * 100, lambda data: b""])
def test_damaged_weights_are_named_before_anything_is_loaded(folder, damage):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    assert f"{file}: damaged" in refusal(folder)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("unet", {"in_channels": 9}, "inpainting"),
        ("unet", {"time_cond_proj_dim": 256}, "LCM"),
        ("vae", {"latents_mean": [0, 0, 0, 0]}, "latents_mean"),
    ],
)
def test_a_model_beyond_the_adapters_is_refused_by_what_it_is(folder, part, change, words):
    file = folder / part / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert words in refusal(folder)


@pytest.mark.parametrize("size", [30, (32, 33), 2, (0, 32)])
def test_a_size_the_vae_cannot_make_is_refused_with_the_nearest(size):
    with pytest.raises(ModelError, match=r"multiples of 4 are needed; the nearest is"):
        working_size(GeneratorConfig(size=size), GENERATOR)


def test_the_working_size_is_the_native_one_unless_asked():
    assert native_side(GENERATOR) == 32
    assert working_size(GeneratorConfig(), GENERATOR) == (32, 32)
    assert working_size(GeneratorConfig(size=64), GENERATOR) == (64, 64)
    assert working_size(GeneratorConfig(size=(24, 40)), GENERATOR) == (24, 40)


def test_the_refiner_has_no_first_text_encoder():
    index = {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None], "tokenizer": [None, None]}
    assert parts_of(index) == ("unet", "vae", "scheduler", "text_encoder_2", "tokenizer_2")
    base = {
        "_class_name": "StableDiffusionXLPipeline",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["t", "T"],
    }
    assert parts_of(base) == ("unet", "vae", "scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    assert set(WEIGHTED) & set(parts_of(read_json(GENERATOR / "model_index.json"))) == {"unet", "vae", "text_encoder"}


def test_prompts_that_the_tokenizer_cuts_are_counted_once_each():
    long = "a photo of the digit " + "seven " * 200
    count, limit = count_truncated(GENERATOR, ["a photo", long, long, long + "one"])
    assert count == 2
    assert limit > 3
