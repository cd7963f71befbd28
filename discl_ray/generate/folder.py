"""A diffusers-format folder, looked at without loading it: is it all there, and what is it?"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from discl_ray.core.ids import folder_hash, stable_id
from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig

PARTS = {"unet": True, "vae": True, "text_encoder": True, "tokenizer": False, "scheduler": False}
"""Parts of a Stable Diffusion 1.x folder and whether they hold weights."""

FAMILIES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
"""`_class_name`s in model_index.json that the adapter loads."""


def find_model(model: str, revision: str | None = None) -> Path:
    """The local folder of `embedded`, a path, or a Hugging Face id (downloaded, safetensors only).

    Raises ModelError if there is no such folder and nothing can be downloaded.
    """
    if model == "embedded":
        return GENERATOR
    if Path(model).is_dir():
        return Path(model)
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelError(f"generator.model = '{model}': no such folder (a Hugging Face id reads 'owner/name')")
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's errors are many, and all of them mean this
        raise ModelError(
            f"generator.model = '{model}': neither a folder here nor to be had from the hub ({type(error).__name__}). "
            f"On a connected machine run `hf download {model}`, copy the folder, and give its path."
        ) from error


def check_folder(folder: Path) -> None:
    """Raises ModelError unless every part is there, with safetensors where there are weights."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(f"{folder}: no model_index.json; a diffusers-format folder has one")
    family = read_json(index).get("_class_name")
    if family not in FAMILIES:
        raise ModelError(f"{index}: _class_name = '{family}'; allowed: {', '.join(FAMILIES)}")
    for part, weights in PARTS.items():
        if not (folder / part).is_dir():
            raise ModelError(f"{folder}: part '{part}' is missing; needed are {', '.join(PARTS)}")
        if weights and not list((folder / part).glob("*.safetensors")):
            raise ModelError(f"{folder / part}: no *.safetensors file; pickled weights are not loaded, convert them first")


def scheduler_config(folder: Path) -> dict[str, Any]:
    """The model's scheduler settings."""
    return read_json(folder / "scheduler" / "scheduler_config.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises ModelError if the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds {type(value).__name__}, a JSON object is needed")
    return value


def fingerprint(config: GeneratorConfig, folder: Path, num_steps: int) -> str:
    """Everything besides the row that decides an image's bytes: weights, sampler, T, guidance, precision, codec, libraries."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers", "pillow")}
    fields = (config.sampler, num_steps, config.cfg_scale, config.dtype, config.codec)
    return stable_id(folder_hash(folder), *fields, versions)
