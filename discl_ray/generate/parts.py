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

SD, SDXL = "Stable Diffusion", "Stable Diffusion XL"
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

UNFED = ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "encoder_hid_dim")
"""Switches of a UNet that make it want something besides latent, timestep, text and size."""


def parts_of(index: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts a folder with this model_index.json must have."""
    if FAMILIES[index["_class_name"]] == SD:
        return ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
    # the refiner has no first text encoder
    first = [part for part in ("text_encoder", "tokenizer") if not _is_absent(index.get(part))]
    return ("unet", "vae", "scheduler", *first, "text_encoder_2", "tokenizer_2")


def _is_absent(entry: Any) -> bool:
    """Whether model_index.json says that there is no such part."""
    return entry in (None, [None, None])


def text_parts(index: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Text encoders and their tokenizers, in the order of the UNet's text input."""
    parts = parts_of(index)
    encoders = [part for part in parts if part.startswith("text_encoder")]
    tokenizers = [part for part in parts if part.startswith("tokenizer")]
    return encoders, tokenizers


def check_parts(folder: Path, index: Mapping[str, Any]) -> None:
    """Raises ModelError if a part is of another class, or its inputs or outputs do not fit."""
    for part in parts_of(index):
        _check_class(folder, part, index.get(part))
    _check_unet(folder, index)
    for encoder, tokenizer in zip(*text_parts(index), strict=True):
        _check_tokenizer(folder, encoder, tokenizer)


def _check_class(folder: Path, part: str, entry: Any) -> None:
    """Checks a part's class against its entry in model_index.json and its own config."""
    allowed = CLASSES.get(part.removesuffix("_2"))
    if allowed is None:
        return
    name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    _one_of(f"{folder / 'model_index.json'}: {part}", name, allowed)
    if part.startswith("tokenizer"):
        return
    file = folder / part / "config.json"
    config = read_json(file)
    if config.get("quantization_config"):
        raise ModelError(
            f"{file}: quantised weights are not loaded; take them in float16, bfloat16 or float32"
        )
    if part.startswith("text_encoder"):
        _one_of(f"{file}: model_type", config.get("model_type"), CLIP_TYPES)
    else:
        _one_of(f"{file}: _class_name", config.get("_class_name"), allowed)


def _one_of(where: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise ModelError(f"{where} = '{value}'; allowed: {', '.join(allowed)}")


def _check_unet(folder: Path, index: Mapping[str, Any]) -> None:
    """Checks that UNet and VAE share their latents, and that the UNet needs no other inputs."""
    unet = read_json(folder / "unet" / "config.json")
    vae = read_json(folder / "vae" / "config.json")
    _check_latents(folder, unet, vae)
    if unet.get("time_cond_proj_dim") is not None:
        raise ModelError(
            f"{folder}: a distilled model that embeds its guidance (LCM); take the base model"
        )
    for name in UNFED:
        if unet.get(name) is not None:
            raise ModelError(
                f"{folder}/unet: {name} = {unet[name]} needs an input that is not given; take a "
                "model without it"
            )
    family = index["_class_name"]
    needed = "text_time" if FAMILIES[family] == SDXL else None
    found = unet.get("addition_embed_type")
    if found != needed:
        raise ModelError(
            f"{folder}/unet: addition_embed_type = {found}; {family} has {needed}: "
            "model_index.json or the UNet is of another model"
        )
    _check_text_width(folder, index, unet)


def _check_latents(folder: Path, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    """Checks that the UNet's input and output are the VAE's latents, and that these only scale."""
    channels = unet.get("in_channels", 4)
    latent = vae.get("latent_channels", 4)
    if channels != latent:
        raise ModelError(
            f"{folder}: the UNet takes {channels} channels and the VAE makes {latent}; "
            "inpainting, depth and upscaling models cannot do img2img"
        )
    if unet.get("out_channels", 4) != channels:
        raise ModelError(
            f"{folder}/unet: makes {unet['out_channels']} channels of {channels}; as many are "
            "needed"
        )
    if vae.get("latents_mean") is not None or vae.get("shift_factor"):
        raise ModelError(
            f"{folder}/vae: shifted latents (latents_mean, shift_factor) are not supported"
        )
    scaling = vae.get("scaling_factor", 0.18215)
    if type(scaling) not in (int, float) or not 0 < scaling < math.inf:
        file = folder / "vae" / "config.json"
        raise ModelError(f"{file}: scaling_factor = {scaling!r}; a number above 0 is needed")


def _check_text_width(folder: Path, index: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
    """Checks the UNet's text inputs against what the text encoders give."""
    encoders = text_parts(index)[0]
    configs = [text_config(folder / part) for part in encoders]
    given = sum(config.get("hidden_size", 512) for config in configs)
    needed = unet.get("cross_attention_dim", 1280)
    if isinstance(needed, int) and needed != given:
        raise ModelError(
            f"{folder}: the UNet needs {needed} numbers a token and {' and '.join(encoders)} give "
            f"{given}"
        )
    if FAMILIES[index["_class_name"]] == SDXL:
        _check_pooled_width(folder, index, unet, configs[-1].get("projection_dim", 512))


def _check_pooled_width(
    folder: Path, index: Mapping[str, Any], unet: Mapping[str, Any], pooled: int
) -> None:
    """Checks SDXL's second text input: the pooled embedding, and numbers about size."""
    aesthetics = index.get("requires_aesthetics_score", False)
    numbers = 5 if aesthetics else 6
    given = pooled + numbers * (unet.get("addition_time_embed_dim") or 0)
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
    return {**config, **inner} if isinstance(inner, dict) else config


def _check_tokenizer(folder: Path, encoder: str, tokenizer: str) -> None:
    """Checks that a vocabulary and a length are given: transformers would make them up."""
    place = folder / tokenizer
    if not (place / "tokenizer.json").is_file():
        files = ("vocab.json", "merges.txt")
        missing = [name for name in files if not (place / name).is_file()]
        if missing:
            raise ModelError(
                f"{place}: {' and '.join(missing)} missing (or tokenizer.json); copy it from the "
                "model's folder"
            )
    limit = text_config(folder / encoder).get("max_position_embeddings", 77)
    file = place / "tokenizer_config.json"
    if not file.is_file():
        raise ModelError(
            f"{place}: tokenizer_config.json is missing; copy it, or write "
            f'{{"model_max_length": {limit}}}'
        )
    length = read_json(file).get("model_max_length")
    if not isinstance(length, int) or not 2 < length <= limit:
        raise ModelError(f"{file}: model_max_length = {length}; {encoder} takes {limit} tokens")
