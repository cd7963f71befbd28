"""Finds a diffusers-format folder and lists its files; no weight is read."""

from __future__ import annotations

import math
import re
from pathlib import Path

from discl_ray.core.weights import indexed_files, read_header, read_json
from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.parts import parts_of

WEIGHTED = ("unet", "vae", "text_encoder", "text_encoder_2")
"""Parts that hold weights, where a family has them."""

SINGLE = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
"""Suffixes of single files that hold a whole model, as other programs use them."""

PUBLISHED_GB = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": 2.4,
    "stabilityai/stable-diffusion-xl-refiner-1.0": 7.5,
    "stabilityai/stable-diffusion-xl-base-1.0": 8.6,
}
"""GPU memory of the presets' weights, by the sizes of their files: UNet and VAE at two bytes a
number, text encoders at four."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def find_model(model: str, revision: str | None = None, variant: str | None = None) -> Path:
    """The local folder of `embedded`, a path, or a Hugging Face id.

    Of an id only the parts used are downloaded, as safetensors. Raises ModelError if there is no
    such folder and nothing can be downloaded.
    """
    if model == "embedded":
        return GENERATOR
    place = Path(model)
    if place.is_dir():
        return place
    if place.suffix in SINGLE:
        raise ModelError(_single_file(place))
    is_path = model.startswith((".", "/", "~"))
    if is_path or model.count("/") != 1:
        raise ModelError(
            f"generator.model = '{model}': no such folder (a Hugging Face id reads 'owner/name')"
        )
    # not at the top: a local folder needs none of it, and commands start quickly
    from huggingface_hub import snapshot_download

    patterns = _download_patterns(variant)
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub raises many kinds, for one reason
        kind = type(error).__name__
        raise ModelError(
            f"generator.model = '{model}': not a folder here, and not available from the hub "
            f"({kind}). On a connected machine run `hf download {model}`, copy the "
            "folder, and give its path."
        ) from error


def _download_patterns(variant: str | None) -> list[str]:
    """The files of a repository that are used: configs, tokenizers, and one variant's weights."""
    patterns = ["model_index.json", "*/*.json", "tokenizer*/*.txt"]
    dot = _dotted(variant)
    for part in WEIGHTED:
        for stem in ("model", "diffusion_pytorch_model"):
            name = f"{part}/{stem}{dot}"
            patterns.append(f"{name}.safetensors")
            patterns.append(f"{name}-*-of-*.safetensors")
    return patterns


def _dotted(variant: str | None) -> str:
    """What a variant adds to the name of its files."""
    return f".{variant}" if variant else ""


def _single_file(file: Path) -> str:
    """What to do about a checkpoint that is one file."""
    if not file.is_file():
        return (
            f"generator.model = '{file}': no such file, and a folder in diffusers' format is needed"
        )
    # the keys of a pickle cannot be read without unpickling it
    keys = read_header(file) if file.suffix == ".safetensors" else {}
    xl = any(name.startswith("conditioner.") for name in keys)
    pipeline = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
    other = "" if keys else " (StableDiffusionXLPipeline if it is an SDXL)"
    folder = file.with_suffix("")
    return (
        f"generator.model = '{file}': a single file; make a folder of it once, on a connected "
        "machine, and name that:\n"
        f'  python -c "from diffusers import {pipeline} as P; '
        f"P.from_single_file('{file}').save_pretrained('{folder}')\"{other}\n"
        f"  generator.model={folder}"
    )


def weight_files(folder: Path, part: str, variant: str | None) -> list[Path]:
    """The safetensors files of a part, of one variant."""
    dot = re.escape(_dotted(variant))
    name = re.compile(rf"(model|diffusion_pytorch_model){dot}(-\d+-of-\d+)?\.safetensors")
    files: list[Path] = []
    for path in (folder / part).glob("*.safetensors"):
        if name.fullmatch(path.name):
            files.append(path)
    return sorted(files)


def loaded_files(folder: Path, part: str, variant: str | None) -> list[Path]:
    """The files a part is loaded from: the shards its index names, or the file that holds it all.

    Raises ModelError if there are none, or not all.
    """
    place = folder / part
    files = weight_files(folder, part, variant)
    if not files:
        raise ModelError(_no_weights(place, variant))
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    dot = _dotted(variant)
    whole = f"{stem}{dot}.safetensors"
    single = [path for path in files if path.name == whole]
    # diffusers wrote the second form before it wrote the first, and reads both
    usual = f"{stem}.safetensors.index{dot}.json"
    other = f"{stem}.safetensors{dot}.index.json"
    indices = [place / usual, place / other]
    index = [path for path in indices if path.is_file()]
    # of both, diffusers loads the shards and transformers the single file
    if index and not (single and stem == "model"):
        return indexed_files(index[0])
    if not single:
        names = [path.name for path in files[:2]]
        some = ", ".join(names)
        raise ModelError(
            f"{place}: {some} and no {usual}, which says what is in which; copy it too, or name "
            f"a single file {whole}"
        )
    return single


def _no_weights(place: Path, variant: str | None) -> str:
    """Why a part has no usable weights."""
    found = sorted(path.name for path in place.glob("*.safetensors"))
    if not found:
        return f"{place}: no *.safetensors file; pickled weights are not loaded, convert them first"
    names = ", ".join(found)
    return (
        f"{place}: nothing of generator.variant = {variant}; there are {names} "
        "(model.fp16.safetensors is of generator.variant=fp16)"
    )


def model_files(folder: Path, variant: str | None) -> dict[str, Path]:
    """Every file that decides what the model is, by its name in the folder."""
    index_file = folder / "model_index.json"
    index = read_json(index_file)
    files = [index_file]
    for part in parts_of(index):
        paths = sorted((folder / part).iterdir())
        others = [path for path in paths if path.suffix != ".safetensors"]
        files += filter(Path.is_file, others)
        if part in WEIGHTED:
            files += weight_files(folder, part, variant)
    return {file.relative_to(folder).as_posix(): file for file in files}


def weight_bytes(config: GeneratorConfig, folder: Path) -> int:
    """Memory of the loaded weights: UNet and VAE in their precision, text encoders in float32."""
    # text encoders are always loaded in float32 (generate/diffusion.py)
    precision = {"unet": config.dtype, "vae": config.vae_dtype}
    index = read_json(folder / "model_index.json")
    total = 0
    for part in parts_of(index):
        if part not in WEIGHTED:
            continue
        files = weight_files(folder, part, config.variant)
        numbers = sum(map(_count, files))
        dtype = precision.get(part, "float32")
        total += numbers * BYTES[dtype]
    return total


def _count(file: Path) -> int:
    """Numbers in a safetensors file, from its header."""
    weights = read_header(file).values()
    return sum(math.prod(weight.shape) for weight in weights)
