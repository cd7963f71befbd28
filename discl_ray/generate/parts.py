"""The parts of a diffusers-format model folder, checked by their configs.

A part (UNet, VAE, text encoder, …) is a subfolder with its own config; model_index.json beside them
names the pipeline and each part's class. Each part has to be of a class the adapters load, and the
parts have to fit together. Only JSON is read here; `weights` checks the weights.
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
"""Pipeline (`_class_name` in model_index.json) -> family, which decides the adapter. The refiner is
an SDXL folder without a first text encoder."""

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
"""diffusers' default where a VAE's config has no scaling_factor: that of Stable Diffusion 1."""

UNSUPPORTED_INPUTS = (
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "encoder_hid_dim",
)
"""Keys of a UNet's config that, if set, add an input besides latent, timestep, text and size."""


def family_of(index: Config) -> str:
    """SD or SDXL, by the pipeline that model_index.json names."""
    return FAMILIES[index["_class_name"]]


def parts_of(index: Config) -> tuple[str, ...]:
    """The parts a folder with this model_index.json must have."""
    if family_of(index) == SD:
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
    """Checks a part's class, as model_index.json and as the part's own config names it."""
    allowed = CLASSES.get(part.removesuffix("_2"))
    if allowed is None:
        return
    index_file = folder / "model_index.json"
    indexed = _class_in(entry)
    _check_allowed(f"{index_file}: {part}", indexed, allowed)
    if part.startswith("tokenizer"):
        return
    file = folder / part / "config.json"
    config = read_json(file)
    quantised = config.get("quantization_config")
    if quantised:
        raise ModelError(
            f"{file}: quantised weights are not loaded; take them in float16, bfloat16 or float32"
        )
    # transformers' configs name an architecture, those of diffusers a class
    if part.startswith("text_encoder"):
        kind = config.get("model_type")
        _check_allowed(f"{file}: model_type", kind, CLIP_TYPES)
    else:
        kind = config.get("_class_name")
        _check_allowed(f"{file}: _class_name", kind, allowed)


def _class_in(entry: Any) -> Any:
    """The class in an entry of model_index.json, which is [library, class]."""
    if isinstance(entry, list) and len(entry) == 2:
        return entry[1]
    return None


def _check_allowed(key: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises ModelError for a value that is given and not allowed; `key` is its file and name."""
    if value is None or value in allowed:
        return
    names = ", ".join(allowed)
    raise ModelError(f"{key} = '{value}'; allowed: {names}")


def _check_unet(folder: Path, index: Config) -> None:
    """Checks that UNet and VAE share their latents, and that the UNet's inputs are supported."""
    unet = _part_config(folder, "unet")
    vae = _part_config(folder, "vae")
    _check_latents(folder, unet, vae)
    guidance_width = unet.get("time_cond_proj_dim")
    if guidance_width is not None:
        raise ModelError(
            f"{folder}: a distilled model that embeds its guidance (LCM); take the base model"
        )
    for name in UNSUPPORTED_INPUTS:
        value = unet.get(name)
        if value is not None:
            raise ModelError(
                f"{folder}/unet: {name} = {value} is an input that the adapters do not give; "
                "take a model without it"
            )
    needed = "text_time" if family_of(index) == SDXL else None
    found = unet.get("addition_embed_type")
    if found != needed:
        pipeline = index["_class_name"]
        raise ModelError(
            f"{folder}/unet: addition_embed_type = {found}; {pipeline} has {needed}: "
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
        raise ModelError(f"{folder}/unet: makes {made} channels of {channels}; both must be equal")
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
    """Checks that the text encoders' embeddings are as wide as those the UNet attends to."""
    encoders, _ = text_parts(index)
    configs = [text_config(folder / part) for part in encoders]
    # what a config leaves out has the default of its class, here CLIPTextConfig
    widths = [config.get("hidden_size", 512) for config in configs]
    given = sum(widths)  # the adapter concatenates the encoders' hidden states
    needed = unet.get("cross_attention_dim", 1280)
    # a list holds a width for each block; weights.py finds those out by passing a latent through
    if isinstance(needed, int) and needed != given:
        names = " and ".join(encoders)
        give = "gives" if len(encoders) == 1 else "give"
        raise ModelError(
            f"{folder}: the UNet needs text embeddings of width {needed}; {names} {give} {given}"
        )
    if family_of(index) == SDXL:
        pooled = configs[-1].get("projection_dim", 512)
        _check_pooled_width(folder, index, unet, pooled)


def _check_pooled_width(folder: Path, index: Config, unet: Config, pooled: int) -> None:
    """Checks SDXL's added conditioning: the pooled text embedding and the size values."""
    aesthetics = index.get("requires_aesthetics_score", False)
    # two values each: original size and crop corner; then the target size, or one aesthetic score
    values = 5 if aesthetics else 6
    width = unet.get("addition_time_embed_dim") or 0
    given = pooled + values * width
    needed = unet.get("projection_class_embeddings_input_dim")
    if needed != given:
        raise ModelError(
            f"{folder}: the UNet needs pooled text and size embeddings of width {needed}, and gets "
            f"{given} (requires_aesthetics_score = {bool(aesthetics)} in model_index.json)"
        )


def text_config(encoder: Path) -> dict[str, Any]:
    """The config of a text encoder in this folder; of a whole CLIP, that of its text tower."""
    config = read_json(encoder / "config.json")
    inner = config.get("text_config")
    if not isinstance(inner, dict):
        return config
    return {**config, **inner}


def _check_tokenizer(folder: Path, encoder: str, tokenizer: str) -> None:
    """Checks that vocabulary and length are given: transformers would silently use defaults."""
    tokenizer_folder = folder / tokenizer
    _check_vocabulary(tokenizer_folder)
    text = text_config(folder / encoder)
    limit = text.get("max_position_embeddings", 77)
    file = tokenizer_folder / "tokenizer_config.json"
    if not file.is_file():
        raise ModelError(
            f"{tokenizer_folder}: tokenizer_config.json is missing; copy it, or write "
            f'{{"model_max_length": {limit}}}'
        )
    length = read_json(file).get("model_max_length")
    # two of the tokens mark the beginning and the end of a text
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
