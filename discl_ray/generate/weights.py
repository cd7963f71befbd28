"""Does each part of a model folder hold the weights its config asks for, and do the parts fit together?

Needs PyTorch and diffusers, reads no weight and computes nothing: architectures are built on the meta device, where a tensor is a
shape and a type, and run through the adapter that runs them in earnest.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPTokenizer

from discl_ray.core.weights import Weight, compare, read_headers, read_json, vocabulary_fits
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.diffusion import META, empty_part, load_model
from discl_ray.generate.model_folder import WEIGHTED, loaded_files, vae_factor
from discl_ray.generate.parts import parts_of, text_parts

HARMLESS = re.compile(
    r"(.*\.)?position_ids|(vision_model|visual_projection|text_projection)\..*|logit_scale"
)
"""What a text encoder's file may hold besides: a buffer of former versions, and the rest of the CLIP it is taken from."""

PREFIX = "text_model."
"""Stands before a text encoder's names in published files; transformers takes them with it and without."""


def check_weights(folder: str, variant: str | None) -> None:
    """Raises ModelError unless every part can be built, its weights are its own, and a latent passes through all of them."""
    place = Path(folder)
    index = read_json(place / "model_index.json")
    for part in parts_of(index):
        if part in WEIGHTED:
            _check_part(place, part, variant)
    for encoder, tokenizer in zip(*text_parts(index), strict=True):
        _check_vocabulary(place, encoder, tokenizer)
    try:
        _run_through(place, variant)
    except Exception as error:  # whatever the libraries raise, the actor would raise
        raise ModelError(
            f"{place}: its parts do not fit together ({_line(error)}); look at their config.json"
        ) from error


def _check_part(folder: Path, part: str, variant: str | None) -> None:
    files = loaded_files(folder, part, variant)
    try:
        model = empty_part(folder, part)
    except Exception as error:
        raise ModelError(
            f"{folder / part / 'config.json'}: no {part} can be built from it ({_line(error)})"
        ) from error
    found: dict[str, Any] = dict(read_headers(files))
    if part.startswith("text_encoder"):
        expected = {name.removeprefix(PREFIX): weight for name, weight in weights_of(model).items()}
        found = {name.removeprefix(PREFIX): weight for name, weight in found.items()}
        found = {
            name: weight
            for name, weight in found.items()
            if name in expected or not HARMLESS.fullmatch(name)
        }
    else:
        expected = weights_of(model)
        if (
            len(files) == 1
        ):  # names of attention before diffusers 0.13, which it mends in a file but not in shards
            model._fix_state_dict_keys_on_load(found)
    compare(str(folder / part), expected, found)


def weights_of(model: torch.nn.Module) -> dict[str, Weight]:
    """Name -> weight of an architecture."""
    return {
        name: Weight(tuple(t.shape), t.is_floating_point())
        for name, t in model.state_dict().items()
    }


def _check_vocabulary(folder: Path, encoder: str, tokenizer: str) -> None:
    rows = empty_part(folder, encoder).get_input_embeddings().num_embeddings
    try:
        words = len(CLIPTokenizer.from_pretrained(folder / tokenizer))
    except Exception as error:
        raise ModelError(
            f"{folder / tokenizer}: no tokenizer can be made of it ({_line(error)})"
        ) from error
    if not vocabulary_fits(words, rows):
        raise ModelError(
            f"{folder / tokenizer}: {words} tokens, and {encoder} has vectors for {rows}; copy both from one model"
        )


def _run_through(folder: Path, variant: str | None) -> None:
    """One prompt and one source through text encoders, UNet and VAE, on the meta device."""
    side = 8 * vae_factor(folder)
    model = load_model(folder, GeneratorConfig(model=str(folder), variant=variant, size=side), META)
    conditioning = model.encode_prompts("", "a photo")
    mean, _ = model.encode_source(np.zeros((side, side, 3), np.uint8))
    latents = torch.zeros(2, *model.latent_shape, device=META)
    made = model.denoise(latents, torch.zeros(2, device=META), conditioning)
    pixels, _ = model.decode(latents)
    for what, found, wanted in (
        ("VAE's latent", mean, latents[0]),
        ("UNet's output", made, latents),
        ("VAE's image", pixels, torch.empty(2, side, side, 3)),
    ):
        if found.shape != wanted.shape:
            raise ModelError(f"the {what} is {list(found.shape)}, needed is {list(wanted.shape)}")


def _line(error: Exception) -> str:
    """An error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
