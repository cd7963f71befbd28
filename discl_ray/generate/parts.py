"""The parts of a diffusers-format folder by what their configs say: is each of a class the adapters load, and can they feed it?"""

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
"""`_class_name` in model_index.json -> family. The refiner is an SDXL folder without a first text encoder."""

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
    optional = ("text_encoder", "tokenizer") if FAMILIES[index["_class_name"]] == SDXL else ()
    second = ("text_encoder_2", "tokenizer_2") if FAMILIES[index["_class_name"]] == SDXL else ()
    absent = {name for name in optional if index.get(name) in (None, [None, None])}
    return tuple(
        n
        for n in ("unet", "vae", "scheduler", "text_encoder", "tokenizer", *second)
        if n not in absent
    )


def text_parts(index: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Text encoders and their tokenizers, in the order in which the UNet wants what they say."""
    parts = parts_of(index)
    return [n for n in parts if n.startswith("text_encoder")], [
        n for n in parts if n.startswith("tokenizer")
    ]


def check_parts(folder: Path, index: Mapping[str, Any]) -> None:
    """Raises ModelError if a part is of another class, or wants or gives what the adapters do not."""
    for part in parts_of(index):
        _check_class(folder, part, index.get(part))
    _check_unet(folder, index)
    for encoder, tokenizer in zip(*text_parts(index), strict=True):
        _check_tokenizer(folder, encoder, tokenizer)


def _check_class(folder: Path, part: str, said: Any) -> None:
    allowed = CLASSES.get(part.removesuffix("_2"))
    if allowed is None:
        return
    named = said[1] if isinstance(said, list) and len(said) == 2 else None
    _one_of(f"{folder / 'model_index.json'}: {part}", named, allowed)
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
    unet, vae = (
        read_json(folder / "unet" / "config.json"),
        read_json(folder / "vae" / "config.json"),
    )
    channels, latent = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if channels != latent:
        raise ModelError(
            f"{folder}: the UNet takes {channels} channels and the VAE makes {latent}; "
            "inpainting, depth and upscaling models cannot do img2img"
        )
    if unet.get("out_channels", 4) != channels:
        raise ModelError(
            f"{folder}/unet: makes {unet['out_channels']} channels of {channels}; as many are needed"
        )
    if unet.get("time_cond_proj_dim") is not None:
        raise ModelError(
            f"{folder}: a distilled model that embeds its guidance (LCM); take the base model"
        )
    if vae.get("latents_mean") is not None or vae.get("shift_factor"):
        raise ModelError(
            f"{folder}/vae: shifted latents (latents_mean, shift_factor) are not supported"
        )
    scaling = vae.get("scaling_factor", 0.18215)
    if type(scaling) not in (int, float) or not 0 < scaling < math.inf:
        raise ModelError(
            f"{folder / 'vae' / 'config.json'}: scaling_factor = {scaling!r}; a number above 0 is needed"
        )
    for name in UNFED:
        if unet.get(name) is not None:
            raise ModelError(
                f"{folder}/unet: {name} = {unet[name]} wants an input that is not given; take a model without it"
            )
    family = FAMILIES[index["_class_name"]]
    wanted = "text_time" if family == SDXL else None
    if unet.get("addition_embed_type") != wanted:
        raise ModelError(
            f"{folder}/unet: addition_embed_type = {unet.get('addition_embed_type')}; {index['_class_name']} has {wanted}: "
            "model_index.json or the UNet is of another model"
        )
    _check_text_width(folder, index, unet)


def _check_text_width(folder: Path, index: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
    """The UNet's cross-attention against what the text encoders give it."""
    encoders = text_parts(index)[0]
    configs = [text_config(folder / part) for part in encoders]
    width, wanted = (
        sum(c.get("hidden_size", 512) for c in configs),
        unet.get("cross_attention_dim", 1280),
    )
    if isinstance(wanted, int) and wanted != width:
        raise ModelError(
            f"{folder}: the UNet wants {wanted} numbers a token and {' and '.join(encoders)} give {width}"
        )
    if FAMILIES[index["_class_name"]] != SDXL:
        return
    count = 5 if index.get("requires_aesthetics_score", False) else 6
    given = configs[-1].get("projection_dim", 512) + count * (
        unet.get("addition_time_embed_dim") or 0
    )
    if (wanted := unet.get("projection_class_embeddings_input_dim")) != given:
        raise ModelError(
            f"{folder}: the UNet wants {wanted} numbers about pooled text and size, and gets {given} "
            f"(requires_aesthetics_score = {count == 5} in model_index.json)"
        )


def text_config(place: Path) -> dict[str, Any]:
    """A text encoder's settings, also where they are part of a whole CLIP's."""
    config = read_json(place / "config.json")
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def _check_tokenizer(folder: Path, encoder: str, tokenizer: str) -> None:
    """Without these files and this number transformers makes up a vocabulary and a length."""
    place = folder / tokenizer
    if not (place / "tokenizer.json").is_file():
        lost = [name for name in ("vocab.json", "merges.txt") if not (place / name).is_file()]
        if lost:
            raise ModelError(
                f"{place}: {' and '.join(lost)} missing (or tokenizer.json); copy it from the model's folder"
            )
    file, limit = (
        place / "tokenizer_config.json",
        text_config(folder / encoder).get("max_position_embeddings", 77),
    )
    if not file.is_file():
        raise ModelError(
            f'{place}: tokenizer_config.json is missing; copy it, or write {{"model_max_length": {limit}}}'
        )
    length = read_json(file).get("model_max_length")
    if not isinstance(length, int) or not 2 < length <= limit:
        raise ModelError(f"{file}: model_max_length = {length}; {encoder} takes {limit} tokens")
