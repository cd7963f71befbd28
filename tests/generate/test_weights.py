"""A model folder is refused before anything starts.

Its actor would die, or would go on with random weights.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from discl_ray.core.weights import outline
from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.diffusion import PARTS, load_model, load_part
from discl_ray.generate.model_checks import CHECKED, check_folder, check_generator
from discl_ray.generate.model_folder import find_model, loaded_files, model_files
from discl_ray.generate.weights import check_weights
from tests.generate.families import FAMILIES, make_folder

CPU = torch.device("cpu")
T = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.set_num_threads(1)
    return {family: make_folder(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture
def copy(made, tmp_path):
    return lambda family: Path(shutil.copytree(made[family], tmp_path / family))


def weights_file(folder, part):
    return next((folder / part).glob("*.safetensors"))


def rewrite(folder, part, change):
    """Puts change(weights) in the place of a part's weights."""
    file = weights_file(folder, part)
    save_file(
        {k: v.contiguous() for k, v in change(load_file(file)).items()},
        file,
        metadata={"format": "pt"},
    )


def edit(folder, file, **values):
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def split(folder, part):
    """Two shards and their index instead of one file; returns the index."""
    file = weights_file(folder, part)
    state, stem, where = load_file(file), file.stem, {}
    file.unlink()
    for i in range(2):
        name = f"{stem}-{i + 1:05d}-of-00002.safetensors"
        save_file(
            {k: state[k] for k in sorted(state)[i::2]},
            folder / part / name,
            metadata={"format": "pt"},
        )
        where |= dict.fromkeys(sorted(state)[i::2], name)
    index = folder / part / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index


def refusal(folder, **config):
    with pytest.raises(ModelError) as caught:
        check_generator(GeneratorConfig(model=str(folder), **config), T)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_embedded_generator_need_not_be_looked_at_again_and_is_in_order():
    """If this fails because the folder was made anew, its outline is to be put into CHECKED."""
    assert outline(model_files(GENERATOR, None)) in CHECKED
    check_weights(str(GENERATOR), None)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_in_order_passes(made, family):
    check_weights(str(made[family]), None)


def prefixed(prefix):
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("family", "part", "prefix"),
    [
        ("sd1", "unet", "module."),
        ("sdxl", "unet", "_orig_mod."),
        ("sd2", "vae", "first_stage_model."),
        ("sd1", "text_encoder", "cond_stage_model.transformer."),
        ("sdxl-refiner", "text_encoder_2", "module."),
    ],
)
def test_a_foreign_prefix_is_named_with_its_part(copy, family, part, prefix):
    folder = copy(family)
    rewrite(folder, part, prefixed(prefix))
    said = refusal(folder)
    assert str(folder / part) in said
    assert "weights are missing" in said
    assert f"the prefix '{prefix}" in said
    with pytest.raises(
        ModelError, match="weights are missing"
    ):  # and the actor would not go on with random ones
        load_model(folder, GeneratorConfig(model=str(folder)), CPU)


def without_prefix(state):
    return {name.removeprefix("text_model."): tensor for name, tensor in state.items()}


def published(state):
    return {"text_model." + name: tensor for name, tensor in without_prefix(state).items()}


def whole_clip(state):
    rest = (
        "text_projection.weight",
        "visual_projection.weight",
        "vision_model.post_layernorm.weight",
        "logit_scale",
    )
    return {**published(state), **{name: torch.zeros(16, 16) for name in rest}}


def former_attention(state):
    for new, old in (
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "proj_attn"),
    ):
        state = {
            name.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): tensor
            for name, tensor in state.items()
        }
    return state


HARMLESS = {
    "published with text_model.": ("sd1", "text_encoder", published),
    "saved without text_model.": ("sd1", "text_encoder", without_prefix),
    "projected, without text_model.": (
        "sdxl",
        "text_encoder_2",
        lambda s: {k.removeprefix("text_model."): v for k, v in s.items()},
    ),
    "position_ids": (
        "sd1",
        "text_encoder",
        lambda s: {**published(s), "text_model.embeddings.position_ids": torch.arange(16)[None]},
    ),
    "with a projection": (
        "sd2",
        "text_encoder",
        lambda s: {**s, "text_projection.weight": torch.zeros(16, 16)},
    ),
    "a whole CLIP": ("sd1", "text_encoder", whole_clip),
    "attention as before diffusers 0.13": ("sd1", "vae", former_attention),
    "half precision": ("sdxl", "unet", lambda s: {k: v.half() for k, v in s.items()}),
    "mixed precision": (
        "sd1",
        "unet",
        lambda s: {k: v.half() if v.ndim == 1 else v.bfloat16() for k, v in s.items()},
    ),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_differences_are_harmless_and_the_library_says_so_too(copy, kind):
    family, part, change = HARMLESS[kind]
    folder = copy(family)
    before = load_part(folder, part, None, torch.float32, CPU).state_dict()
    rewrite(folder, part, change)
    check_folder(folder)
    options = {"low_cpu_mem_usage": False} if part in ("unet", "vae") else {}
    _, info = PARTS[part].from_pretrained(
        folder / part, use_safetensors=True, output_loading_info=True, **options
    )
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    after = load_part(folder, part, None, torch.float32, CPU).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=0.02) for name in before)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_shards_with_their_index_are_weights_and_without_it_are_not(copy, part):
    folder = copy("sd1")
    index = split(folder, part)
    check_folder(folder)
    assert len(loaded_files(folder, part, None)) == 2
    index.unlink()
    assert f"no {index.name}" in refusal(folder)


def test_former_names_in_shards_stay_missing_as_diffusers_has_it(copy):
    folder = copy("sd1")
    rewrite(folder, "vae", former_attention)
    split(folder, "vae")
    assert re.search(r"to_[qkv]\.weight", refusal(folder))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_missing_shard_is_named_before_anything_is_loaded(copy, part):
    folder = copy("sd1")
    lost = sorted(split(folder, part).parent.glob("*-00002-of-00002.safetensors"))[0]
    lost.unlink()
    assert lost.name in refusal(folder)


def test_both_ways_of_naming_a_variants_shards_are_read(copy):
    folder = copy("sd1")
    split(folder, "unet")
    for part in ("unet", "vae", "text_encoder"):
        for file in (folder / part).glob("*.safetensors"):
            stem, dash, rest = file.name.partition("-")
            file.rename(
                file.with_name(f"{stem}.fp16-{rest}" if dash else f"{file.stem}.fp16.safetensors")
            )
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    text = index.read_text().replace("model-0", "model.fp16-0")
    index.unlink()
    for name in ("index.fp16.json", "fp16.index.json"):
        new = folder / "unet" / f"diffusion_pytorch_model.safetensors.{name}"
        new.write_text(text)
        check_folder(folder, "fp16")
        load_part(folder, "unet", "fp16", torch.float32, CPU)
        new.unlink()
    assert "generator.variant=fp16" in refusal(folder)


CONFIGS = {
    "another class of VAE": (
        "vae/config.json",
        {"_class_name": "AutoencoderTiny"},
        "AutoencoderTiny",
    ),
    "another class of UNet": (
        "unet/config.json",
        {"_class_name": "UNet3DConditionModel"},
        "allowed: UNet2DConditionModel",
    ),
    "another class in the index": (
        "model_index.json",
        {"text_encoder": ["transformers", "T5EncoderModel"]},
        "T5EncoderModel",
    ),
    "another text encoder": ("text_encoder/config.json", {"model_type": "t5"}, "model_type = 't5'"),
    "quantised": (
        "unet/config.json",
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        "quantised",
    ),
    "classes": ("unet/config.json", {"num_class_embeds": 10}, "num_class_embeds = 10"),
    "class embedding": (
        "unet/config.json",
        {"class_embed_type": "timestep"},
        "class_embed_type = timestep",
    ),
    "image embedding": (
        "unet/config.json",
        {"encoder_hid_dim_type": "image_proj"},
        "encoder_hid_dim_type",
    ),
    "added text": (
        "unet/config.json",
        {"addition_embed_type": "text"},
        "addition_embed_type = text",
    ),
    "width of the text": (
        "unet/config.json",
        {"cross_attention_dim": 32},
        "needs text embeddings of width 32",
    ),
    "learned variance": ("unet/config.json", {"out_channels": 8}, "makes 8 channels of 4"),
    "groups": ("unet/config.json", {"norm_num_groups": 3}, "no unet can be built from it"),
    "wider": ("unet/config.json", {"block_out_channels": [16, 32]}, "have another shape"),
    "a layer less": (
        "text_encoder/config.json",
        {"num_hidden_layers": 2},
        "are not the model's (encoder.layers.2.",
    ),
    "a larger vocabulary": (
        "text_encoder/config.json",
        {"vocab_size": 999},
        "token_embedding.weight is",
    ),
    "no length": (
        "tokenizer/tokenizer_config.json",
        {"model_max_length": None},
        "text_encoder takes 16 tokens",
    ),
    "too long": (
        "tokenizer/tokenizer_config.json",
        {"model_max_length": 77},
        "text_encoder takes 16 tokens",
    ),
    "no JSON object": ("vae/config.json", None, "a JSON object is needed"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_an_actor_would_die_of_or_take_for_something_else_is_said_first(copy, kind):
    file, values, words = CONFIGS[kind]
    folder = copy("sd1")
    if values is None:
        (folder / file).write_text("[]")
    else:
        edit(folder, file, **values)
    assert words in refusal(folder)


@pytest.mark.parametrize(("family", "flag"), [("sdxl", True), ("sdxl-refiner", False)])
def test_an_sdxl_that_is_told_the_wrong_numbers_is_refused(copy, family, flag):
    folder = copy(family)
    edit(folder, "model_index.json", requires_aesthetics_score=flag)
    assert "requires_aesthetics_score" in refusal(folder)


def test_an_sdxl_that_calls_itself_sd_is_refused(copy):
    folder = copy("sdxl")
    edit(folder, "model_index.json", _class_name="StableDiffusionPipeline")
    assert "addition_embed_type = text_time" in refusal(folder)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_transformers_would_make_up_is_refused(copy, file):
    folder = copy("sd1")
    (folder / "tokenizer" / file).unlink()
    assert file in refusal(folder)


def test_a_tokenizer_of_another_model_is_refused(copy):
    folder = copy("sd1")
    file = folder / "tokenizer" / "tokenizer.json"
    said = json.loads(file.read_text())
    words = said["model"]["vocab"]
    extra = {f"zz{i}": len(words) + 10 + i for i in range(50)}
    file.write_text(json.dumps({**said, "model": {**said["model"], "vocab": {**words, **extra}}}))
    assert "copy both from one model" in refusal(folder)


def test_weights_too_few_are_refused(copy):
    folder = copy("sd1")
    rewrite(folder, "unet", lambda s: {k: v for k, v in s.items() if "conv_in" not in k})
    assert "2 of 208 weights are missing (conv_in.bias, conv_in.weight)" in refusal(folder)


def test_weights_too_many_are_refused(copy):
    folder = copy("sd1")
    rewrite(folder, "unet", lambda s: {**s, "lora.up.weight": torch.zeros(2, 2)})
    assert "1 are not the model's (lora.up.weight)" in refusal(folder)


def test_integers_are_refused(copy):
    folder = copy("sd1")
    rewrite(
        folder,
        "text_encoder",
        lambda s: {k: v.to(torch.int8) if v.ndim == 2 else v for k, v in s.items()},
    )
    assert "hold integers" in refusal(folder)


@pytest.mark.parametrize(("said", "native"), [(None, None), ([8, 16], (32, 64)), (8, (32, 32))])
def test_a_unet_may_say_its_size_in_any_way_or_not_at_all(copy, said, native):
    folder = copy("sd1")
    edit(folder, "unet/config.json", sample_size=said)
    if native is None:
        assert "set generator.size" in refusal(folder)
    config = GeneratorConfig(model=str(folder), size=None if native else (32, 64))
    check_generator(config, T)
    model = load_model(folder, config, CPU)
    assert model.size == (native or (32, 64))
    assert model.encode_source(np.zeros((*model.size, 3), np.uint8))[0].shape == model.latent_shape


@pytest.mark.parametrize("said", ["8", [8], [8, 8, 8], 0, -8, 8.5, True, [None, 8]])
def test_a_size_that_is_none_is_named_whatever_generator_size_says(copy, said):
    folder = copy("sd1")
    edit(folder, "unet/config.json", sample_size=said)
    assert "sample_size" in refusal(folder)
    assert "sample_size" in refusal(folder, size=32)


@pytest.mark.parametrize(
    ("name", "keys", "pipeline"),
    [
        ("v1-5.safetensors", ["cond_stage_model.transformer.x"], "StableDiffusionPipeline as"),
        ("models/xl.safetensors", ["conditioner.embedders.1.x"], "StableDiffusionXLPipeline as"),
        ("old.ckpt", None, "StableDiffusionPipeline as"),
    ],
)
def test_a_single_file_is_told_how_to_become_a_folder(tmp_path, monkeypatch, name, keys, pipeline):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    if keys:
        save_file({key: torch.zeros(1) for key in keys}, file)
    else:
        file.touch()
    with pytest.raises(ModelError, match="a single file") as caught:
        find_model(name)
    assert pipeline in str(caught.value)
    assert f"from_single_file('{name}').save_pretrained(" in str(caught.value)
    file.unlink()
    with pytest.raises(ModelError, match="no such file"):
        find_model(name)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_no_numbers_are_refused_when_they_are_loaded(copy, part):
    folder, broken = copy("sd1"), []

    def change(state):
        broken.append(sorted(state)[0])
        state[broken[0]].view(-1)[0] = float("nan")
        return state

    rewrite(folder, part, change)
    with pytest.raises(ModelError, match=rf"{part}: 1 of \d+ weights hold NaN or infinity"):
        load_model(folder, GeneratorConfig(model=str(folder)), CPU)


@pytest.mark.parametrize("scale", [0, -1.0, None, "0.18215", True, float("inf")])
def test_a_vae_whose_scale_is_none_is_refused(copy, scale):
    folder = copy("sd1")
    edit(folder, "vae/config.json", scaling_factor=scale)
    assert "a number above 0 is needed" in refusal(folder)
