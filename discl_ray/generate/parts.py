"""The parts of a diffusers-format folder, checked by their configs.

Each part has to be of a class the adapters load, and the parts have to fit together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from discl_ray.core.weights import read_json
from discl_ray.errors import ModelError

Config = Mapping[str, Any]
"""A config.json."""

SD = "Stable Diffusion"
SDXL = "Stable Diffusion XL"
FAMILIES = {
    "StableDiffusionPipeline": SD,
    "StableDiffusionImg2ImgPipeline": SD,
    "StableDiffusionXLPipeline": SDXL,
    "StableDiffusionXLImg2ImgPipeline": SDXL,
}
"""`_class_name` in model_index.json -> family. The refiner is an SDXL folder without a first text
encoder."""

CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
"""Classes a part may be of, by its name; a second text encoder or tokenizer is like the first."""

CLIP_TYPES = ("clip_text_model", "clip")
"""`model_type` of a text encoder."""

FIRST_TEXT = ("text_encoder", "tokenizer")

DEFAULT_SCALING = 0.18215
"""What diffusers takes for a VAE that does not say its own: that of Stable Diffusion 1."""

UNFED = ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "encoder_hid_dim")
"""Switches of a UNet that make it want something besides latent, timestep, text and size."""


def parts_of(index: Config) -> tuple[str, ...]:
    """The parts a folder with this model_index.json must have."""
    if FAMILIES[index["_class_name"]] == SD:
        return ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
    # the refiner has no first text encoder
    first = [part for part in FIRST_TEXT if not _is_absent(index.get(part))]
    return ("unet", "vae", "scheduler", *first, "text_encoder_2", "tokenizer_2")


def _is_absent(entry: Any) -> bool:
    """Whether model_index.json says that there is no such part."""
    return entry in (None, [None, None])


def text_parts(index: Config) -> tuple[list[str], list[str]]:
    """Text encoders and their tokenizers, in the order of the UNet's text input."""
    parts = parts_of(index)
    encoders = [part for part in parts if part.startswith("text_encoder")]
    tokenizers = [part for part in parts if part.startswith("tokenizer")]
    return encoders, tokenizers


def check_parts(folder: Path, index: Config) -> None:
    """Raises ModelError if a part is of another class, or its inputs or outputs do not fit."""
    for part in parts_of(index):
        entry = index.get(part)
        _check_class(folder, part, entry)
    _check_unet(folder, index)
    encoders, tokenizers = text_parts(index)
    for encoder, tokenizer in zip(encoders, tokenizers, strict=True):
        _check_tokenizer(folder, encoder, tokenizer)


def _check_class(folder: Path, part: str, entry: Any) -> None:
    """Checks a part's class against its entry in model_index.json and its own config."""
    allowed = CLASSES.get(part.removesuffix("_2"))
    if allowed is None:
        return
    index_file = folder / "model_index.json"
    indexed = _class_in(entry)
    _one_of(f"{index_file}: {part}", indexed, allowed)
    if part.startswith("tokenizer"):
        return
    file = folder / part / "config.json"
    config = read_json(file)
    quantised = config.get("quantization_config")
    if quantised:
        raise ModelError(
            f"{file}: quantised weights are not loaded; take them in float16, bfloat16 or float32"
        )
    # transformers names an architecture in its configs, diffusers a class
    if part.startswith("text_encoder"):
        kind = config.get("model_type")
        _one_of(f"{file}: model_type", kind, CLIP_TYPES)
    else:
        kind = config.get("_class_name")
        _one_of(f"{file}: _class_name", kind, allowed)


def _class_in(entry: Any) -> Any:
    """The class in an entry of model_index.json, which is [library, class]."""
    if isinstance(entry, list) and len(entry) == 2:
        return entry[1]
    return None


def _one_of(where: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises ModelError for a value that is given and not allowed."""
    if value is None or value in allowed:
        return
    names = ", ".join(allowed)
    raise ModelError(f"{where} = '{value}'; allowed: {names}")


def _check_unet(folder: Path, index: Config) -> None:
    """Checks that UNet and VAE share their latents, and that the UNet needs no other inputs."""
    unet = _part_config(folder, "unet")
    vae = _part_config(folder, "vae")
    _check_latents(folder, unet, vae)
    guidance_width = unet.get("time_cond_proj_dim")
    if guidance_width is not None:
        raise ModelError(
            f"{folder}: a distilled model that embeds its guidance (LCM); take the base model"
        )
    for name in UNFED:
        value = unet.get(name)
        if value is not None:
            raise ModelError(
                f"{folder}/unet: {name} = {value} needs an input that is not given; take a "
                "model without it"
            )
    family = index["_class_name"]
    is_xl = FAMILIES[family] == SDXL
    needed = "text_time" if is_xl else None
    found = unet.get("addition_embed_type")
    if found != needed:
        raise ModelError(
            f"{folder}/unet: addition_embed_type = {found}; {family} has {needed}: "
            "model_index.json or the UNet is of another model"
        )
    _check_text_width(folder, index, unet)


def _part_config(folder: Path, part: str) -> Config:
    """A part's config.json."""
    return read_json(folder / part / "config.json")


def _check_latents(folder: Path, unet: Config, vae: Config) -> None:
    """Checks that the UNet's input and output are the VAE's latents, and that these only scale."""
    # the defaults are those of the classes in diffusers
    channels = unet.get("in_channels", 4)
    latent = vae.get("latent_channels", 4)
    if channels != latent:
        raise ModelError(
            f"{folder}: the UNet takes {channels} channels and the VAE makes {latent}; "
            "inpainting, depth and upscaling models cannot do img2img"
        )
    made = unet.get("out_channels", 4)
    if made != channels:
        raise ModelError(f"{folder}/unet: makes {made} channels of {channels}; as many are needed")
    mean = vae.get("latents_mean")
    shift = vae.get("shift_factor")
    if mean is not None or shift:
        raise ModelError(
            f"{folder}/vae: shifted latents (latents_mean, shift_factor) are not supported"
        )
    scaling = vae.get("scaling_factor", DEFAULT_SCALING)
    is_number = type(scaling) in (int, float)  # JSON's true is no number
    if not is_number or not 0 < scaling < math.inf:
        file = folder / "vae" / "config.json"
        raise ModelError(f"{file}: scaling_factor = {scaling!r}; a number above 0 is needed")


def _check_text_width(folder: Path, index: Config, unet: Config) -> None:
    """Checks the UNet's text inputs against what the text encoders give."""
    encoders, _ = text_parts(index)
    configs = [text_config(folder / part) for part in encoders]
    # what a config leaves out has the default of its class, here CLIPTextConfig
    widths = [config.get("hidden_size", 512) for config in configs]
    given = sum(widths)  # the adapter joins the encoders' hidden states
    needed = unet.get("cross_attention_dim", 1280)
    # a list has a width for each block of the UNet, which the pass through all parts checks
    if isinstance(needed, int) and needed != given:
        names = " and ".join(encoders)
        raise ModelError(
            f"{folder}: the UNet needs {needed} numbers a token and {names} give {given}"
        )
    family = FAMILIES[index["_class_name"]]
    if family == SDXL:
        pooled = configs[-1].get("projection_dim", 512)
        _check_pooled_width(folder, index, unet, pooled)


def _check_pooled_width(folder: Path, index: Config, unet: Config, pooled: int) -> None:
    """Checks SDXL's second text input: the pooled embedding, and numbers about size."""
    aesthetics = index.get("requires_aesthetics_score", False)
    # original size, crop corner, and an aesthetic score or the target size
    numbers = 5 if aesthetics else 6
    width = unet.get("addition_time_embed_dim") or 0
    about_size = numbers * width
    given = pooled + about_size
    needed = unet.get("projection_class_embeddings_input_dim")
    if needed != given:
        raise ModelError(
            f"{folder}: the UNet needs {needed} numbers about pooled text and size, and gets "
            f"{given} (requires_aesthetics_score = {bool(aesthetics)} in model_index.json)"
        )


def text_config(place: Path) -> dict[str, Any]:
    """A text encoder's settings, also where they are part of a whole CLIP's."""
    config = read_json(place / "config.json")
    inner = config.get("text_config")
    if not isinstance(inner, dict):
        return config
    return {**config, **inner}


def _check_tokenizer(folder: Path, encoder: str, tokenizer: str) -> None:
    """Checks that a vocabulary and a length are given: transformers would make them up."""
    place = folder / tokenizer
    _check_vocabulary(place)
    text = text_config(folder / encoder)
    limit = text.get("max_position_embeddings", 77)
    file = place / "tokenizer_config.json"
    if not file.is_file():
        raise ModelError(
            f"{place}: tokenizer_config.json is missing; copy it, or write "
            f'{{"model_max_length": {limit}}}'
        )
    length = read_json(file).get("model_max_length")
    # two tokens mark the beginning and the end of a text
    fits = isinstance(length, int) and 2 < length <= limit
    if not fits:
        raise ModelError(f"{file}: model_max_length = {length}; {encoder} takes {limit} tokens")


def _check_vocabulary(tokenizer: Path) -> None:
    """Checks that a tokenizer's folder has its vocabulary, in the new form or in the old one."""
    newer = tokenizer / "tokenizer.json"
    if newer.is_file():
        return
    missing: list[str] = []
    for name in ("vocab.json", "merges.txt"):
        file = tokenizer / name
        if not file.is_file():
            missing.append(name)
    if missing:
        names = " and ".join(missing)
        raise ModelError(
            f"{tokenizer}: {names} missing (or tokenizer.json); copy it from the model's folder"
        )
