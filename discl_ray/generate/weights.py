"""Whether each part of a model folder has the weights its config asks for, and the parts fit.

Needs PyTorch and diffusers, reads no weight and computes nothing: architectures are built on the
meta device, where a tensor has a shape and a type only, and run through the same adapter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPTokenizer

from discl_ray.core.weights import Weight, compare, read_headers, read_json, vocabulary_fits
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.diffusion import META, empty_part, load_model
from discl_ray.generate.model_folder import WEIGHTED, loaded_files
from discl_ray.generate.model_settings import vae_factor
from discl_ray.generate.parts import parts_of, text_parts

Weights = dict[str, Weight]
"""Weights by name."""

HARMLESS = re.compile(
    r"(.*\.)?position_ids|(vision_model|visual_projection|text_projection)\..*|logit_scale"
)
"""What a text encoder's file may also hold: an old buffer, and the rest of its CLIP."""

PREFIX = "text_model."
"""Stands before a text encoder's names in published files; transformers takes them with it and
without."""


def check_weights(folder: str, variant: str | None) -> None:
    """Raises ModelError unless every part has its weights and a latent passes through all parts."""
    place = Path(folder)
    index = read_json(place / "model_index.json")
    for part in parts_of(index):
        if part in WEIGHTED:
            _check_part(place, part, variant)
    encoders, tokenizers = text_parts(index)
    for encoder, tokenizer in zip(encoders, tokenizers, strict=True):
        _check_vocabulary(place, encoder, tokenizer)
    try:
        _run_through(place, variant)
    except Exception as error:  # whatever the libraries raise, the actor would raise
        reason = _line(error)
        raise ModelError(
            f"{place}: its parts do not fit together ({reason}); look at their config.json"
        ) from error


def _check_part(folder: Path, part: str, variant: str | None) -> None:
    """Compares a part's weights with its architecture's, by name and shape."""
    files = loaded_files(folder, part, variant)
    try:
        model = empty_part(folder, part)
    except Exception as error:
        file = folder / part / "config.json"
        reason = _line(error)
        raise ModelError(f"{file}: no {part} can be built from it ({reason})") from error
    expected = weights_of(model)
    header = read_headers(files)
    found: dict[str, Any] = dict(header)
    if part.startswith("text_encoder"):
        expected = _without_prefix(expected)
        found = _without_prefix(found)
        found = _without_harmless(found, expected)
    elif len(files) == 1:
        # attention had other names before diffusers 0.13, which renames them in a file, not shards
        model._fix_state_dict_keys_on_load(found)
    place = folder / part
    compare(str(place), expected, found)


def _without_prefix(weights: Mapping[str, Weight]) -> Weights:
    """Weights by the names that transformers uses."""
    renamed: Weights = {}
    for name, weight in weights.items():
        plain = name.removeprefix(PREFIX)
        renamed[plain] = weight
    return renamed


def _without_harmless(found: Mapping[str, Weight], expected: Mapping[str, Weight]) -> Weights:
    """Without what is not loaded and may be there."""
    kept: Weights = {}
    for name, weight in found.items():
        extra = name not in expected
        if extra and HARMLESS.fullmatch(name):
            continue
        kept[name] = weight
    return kept


def weights_of(model: torch.nn.Module) -> Weights:
    """The weights of an architecture."""
    weights: Weights = {}
    state = model.state_dict()
    for name, tensor in state.items():
        shape = tuple(tensor.shape)
        weights[name] = Weight(shape, tensor.is_floating_point())
    return weights


def _check_vocabulary(folder: Path, encoder: str, tokenizer: str) -> None:
    """Checks that the text encoder has a vector for every token."""
    architecture = empty_part(folder, encoder)
    embeddings = architecture.get_input_embeddings()
    vectors = embeddings.num_embeddings
    place = folder / tokenizer
    try:
        loaded = CLIPTokenizer.from_pretrained(place)
        tokens = len(loaded)  # with added tokens, which vocab_size leaves out
    except Exception as error:
        reason = _line(error)
        raise ModelError(f"{place}: no tokenizer can be made of it ({reason})") from error
    if not vocabulary_fits(tokens, vectors):
        raise ModelError(
            f"{place}: {tokens} tokens, and {encoder} has vectors for {vectors}; copy both from "
            "one model"
        )


def _run_through(folder: Path, variant: str | None) -> None:
    """One prompt and one source through text encoders, UNet and VAE, on the meta device."""
    side = 8 * vae_factor(folder)  # 8 latents a side: a UNet halves them up to three times
    config = GeneratorConfig(model=str(folder), variant=variant, size=side)
    model = load_model(folder, config, META)
    conditioning = model.encode_prompts("", "a photo")
    source_shape = (side, side, 3)
    source = np.zeros(source_shape, np.uint8)
    mean, _ = model.encode_source(source)
    latents = torch.zeros(2, *model.latent_shape, device=META)
    timesteps = torch.zeros(2, device=META)
    made = model.denoise(latents, timesteps, conditioning)
    pixels, _ = model.decode(latents)
    image_shape = (2, side, side, 3)
    _check_shape("VAE's latent", mean, model.latent_shape)
    _check_shape("UNet's output", made, tuple(latents.shape))
    _check_shape("VAE's image", pixels, image_shape)


def _check_shape(what: str, found: torch.Tensor, needed: tuple[int, ...]) -> None:
    """Raises ModelError for a tensor of another shape."""
    shape = list(found.shape)
    expected = list(needed)
    if shape != expected:
        raise ModelError(f"the {what} is {shape}, needed is {expected}")


def _line(error: Exception) -> str:
    """An error on one line."""
    kind = type(error).__name__
    text = f"{kind}: {error}"
    words = text.split()
    return " ".join(words)[:300]
