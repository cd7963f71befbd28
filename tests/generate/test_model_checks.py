import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch  # noqa: F401, so that each check runs here, in no process of its own

from discl_ray.core.weights import read_header
from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.model_checks import check_folder, check_generator, cut_prompts, fingerprint
from discl_ray.generate.model_folder import find_model
from discl_ray.generate.samplers import SAMPLERS
from tests.generate.folders import edited


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


def test_the_fingerprint_sees_weights_and_settings_but_not_how_it_runs(folder):
    base = fingerprint(GeneratorConfig(), folder, 30)
    assert fingerprint(GeneratorConfig(), GENERATOR, 30) == base
    same = GeneratorConfig(
        micro_batch=1,
        actors=3,
        threads=7,
        decode_batch=2,
        num_gpus=1,
        model="elsewhere",
        shards_in_flight=5,
    )
    assert fingerprint(same, folder, 30) == base
    prints = {base, fingerprint(GeneratorConfig(), folder, 31)}
    changes = [
        {"cfg_scale": 5.0},
        {"dtype": "bfloat16"},
        {"codec": "webp"},
        {"codec": "jpeg"},
        {"codec": "jpeg", "quality": 80},
        {"sampler": "euler"},
        {"size": 64},
        {"fit": "crop"},
        {"text_only": True},
        {"vae_dtype": "bfloat16"},
        {"compile": "default"},
    ]
    for change in changes:
        prints.add(fingerprint(GeneratorConfig(**change), folder, 30))
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    prints.add(fingerprint(GeneratorConfig(), folder, 30))
    assert len(prints) == 3 + len(changes)


def as_family(folder, name):
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_class_name": name}))
    return folder


@pytest.mark.parametrize(
    ("family", "change", "sampler", "num_steps", "respaced"),
    [
        ("StableDiffusionPipeline", {}, "ddim", 30, False),
        (
            "StableDiffusionPipeline",
            {"clip_sample": True, "_class_name": "PNDMScheduler"},
            "ddim",
            30,
            False,
        ),
        ("StableDiffusionPipeline", {"steps_offset": 0}, "ddim", 30, True),
        ("StableDiffusionImg2ImgPipeline", {"steps_offset": None}, "euler", 30, True),
        (
            "StableDiffusionPipeline",
            {"steps_offset": 0, "timestep_spacing": "trailing"},
            "ddim",
            30,
            False,
        ),
        (
            "StableDiffusionPipeline",
            {"steps_offset": None, "timestep_spacing": None},
            "dpm++2m",
            30,
            False,
        ),
        ("StableDiffusionXLPipeline", {"steps_offset": 0}, "ddim", 30, False),
        ("StableDiffusionPipeline", {}, "euler", 1000, True),  # the UNet was told timestep 1000
        ("StableDiffusionPipeline", {}, "dpm++2m", 999, True),  # coefficients were not finite
        ("StableDiffusionPipeline", {"timestep_spacing": "linspace"}, "dpm++2m", 1000, True),
        (
            "StableDiffusionPipeline",
            {"timestep_spacing": "trailing"},
            "ddim",
            61,
            True,
        ),  # there was a step at timestep -1
        ("StableDiffusionPipeline", {"timestep_spacing": "trailing"}, "ddim", 60, False),
    ],
)
def test_the_fingerprint_changes_just_where_the_timesteps_are_others_than_they_were(
    folder, monkeypatch, family, change, sampler, num_steps, respaced
):
    as_family(edited(folder, **change), family)
    monkeypatch.setattr("discl_ray.generate.model_folder.parts_of", lambda _: ("scheduler",))
    monkeypatch.setattr("discl_ray.generate.model_checks.stable_id", lambda *fields: fields)
    fields = fingerprint(GeneratorConfig(sampler=sampler), folder, num_steps)
    assert (fields[-1] == "respaced") == respaced
    assert isinstance(fields[-2 if respaced else -1], dict)


@pytest.mark.parametrize(("num_steps", "near"), [(334, 333), (501, 500), (600, 500), (750, 849)])
def test_a_schedule_that_begins_below_the_noise_is_refused_if_it_is_to_make_lambda_0(
    num_steps, near
):
    with pytest.raises(
        ModelError,
        match=rf"plan\.num_steps = {num_steps}: .*take plan\.num_steps={near}, or leave λ = 0 out",
    ):
        check_generator(GeneratorConfig(), num_steps, (0, 50))
    check_generator(GeneratorConfig(), num_steps, (10, 50))
    check_generator(GeneratorConfig(), near, (0, 50))


@pytest.mark.parametrize("num_steps", [30, 50, 100, 333, 500, 850, 999, 1000])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_the_numbers_of_steps_people_use_are_accepted(sampler, num_steps):
    late = sampler == "dpm++2m" and num_steps in (333, 500)  # which spaces one more
    with pytest.raises(ModelError, match="λ = 0") if late else nullcontext():
        check_generator(GeneratorConfig(sampler=sampler), num_steps, (0, 10, 30, 50))


def test_nonsense_in_the_scheduler_file_is_refused_even_where_it_would_be_repaired(folder):
    with pytest.raises(ModelError, match="steps_offset = '0'") as caught:
        check_generator(GeneratorConfig(model=str(edited(folder, steps_offset="0"))), 30)
    assert str(caught.value).startswith(f"{folder}/scheduler/scheduler_config.json: ")


def test_a_stray_file_of_another_variant_does_not_change_the_fingerprint(folder):
    base = fingerprint(GeneratorConfig(), folder, 30)
    shutil.copy(
        folder / "unet/diffusion_pytorch_model.safetensors",
        folder / "unet/diffusion_pytorch_model.fp16.safetensors",
    )
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
    shard = file.rename(file.with_name("diffusion_pytorch_model-00001-of-00001.safetensors"))
    index = {"metadata": {}, "weight_map": dict.fromkeys(read_header(shard), shard.name)}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps(index)
    )
    check_folder(folder)


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"\xff" * 100, lambda data: b""]
)
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


def test_prompts_that_the_tokenizer_cuts_are_found_once_each():
    long = "a photo of the digit " + "seven " * 200
    found, limit = cut_prompts(GENERATOR, ["a photo", long, long, long + "one"])
    assert found == [long, long + "one"]
    assert limit > 3
