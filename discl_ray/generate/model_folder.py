"""A diffusers-format folder, looked at without loading it: is it all there, what is it, and can it be used?"""

from __future__ import annotations

import importlib.metadata
import math
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from discl_ray.core.apart import check_apart
from discl_ray.core.ids import file_hash, stable_id
from discl_ray.core.weights import indexed_files, outline, read_header, read_json
from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.parts import FAMILIES, SD, check_parts, parts_of
from discl_ray.generate.samplers import SAMPLERS, SCHEDULES
from discl_ray.generate.schedule import begins_late, nearest_good, plain_timesteps, timesteps

WEIGHTED = ("unet", "vae", "text_encoder", "text_encoder_2")
"""Parts that hold weights, where a family has them."""

CHECKED = {"cf032c8c605318ef987d77d07f6b48e3"}
"""Outlines of models whose names and shapes were found in order: the embedded one's when it was committed, and this process's."""

SINGLE = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
"""How files end that hold a whole model, as other programs want it."""


def find_model(model: str, revision: str | None = None, variant: str | None = None) -> Path:
    """The local folder of `embedded`, a path, or a Hugging Face id (downloaded: the parts used, safetensors only).

    Raises ModelError if there is no such folder and nothing can be downloaded.
    """
    if model == "embedded":
        return GENERATOR
    if Path(model).is_dir():
        return Path(model)
    if Path(model).suffix in SINGLE:
        raise ModelError(_single_file(Path(model)))
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelError(
            f"generator.model = '{model}': no such folder (a Hugging Face id reads 'owner/name')"
        )
    from huggingface_hub import snapshot_download

    suffix = f".{variant}" if variant else ""
    names = [
        f"{base}{suffix}{part}.safetensors"
        for base in ("model", "diffusion_pytorch_model")
        for part in ("", "-*-of-*")
    ]
    patterns = [
        "model_index.json",
        "*/*.json",
        "tokenizer*/*.txt",
        *(f"{p}/{n}" for p in WEIGHTED for n in names),
    ]
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's errors are many, and all of them mean this
        raise ModelError(
            f"generator.model = '{model}': neither a folder here nor to be had from the hub ({type(error).__name__}). "
            f"On a connected machine run `hf download {model}`, copy the folder, and give its path."
        ) from error


def _single_file(file: Path) -> str:
    """What to do about a checkpoint that is one file."""
    if not file.is_file():
        return (
            f"generator.model = '{file}': no such file, and a folder in diffusers' format is needed"
        )
    keys = read_header(file) if file.suffix == ".safetensors" else {}
    xl = any(name.startswith("conditioner.") for name in keys)
    pipeline = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
    other = "" if keys else " (StableDiffusionXLPipeline if it is an SDXL)"
    folder = file.with_suffix("")
    return (
        f"generator.model = '{file}': a single file; make a folder of it once, on a connected machine, and name that:\n"
        f'  python -c "from diffusers import {pipeline} as P; '
        f"P.from_single_file('{file}').save_pretrained('{folder}')\"{other}\n"
        f"  generator.model={folder}"
    )


def weight_files(folder: Path, part: str, variant: str | None) -> list[Path]:
    """The safetensors files of a part, of one variant."""
    suffix = re.escape(f".{variant}") if variant else ""
    name = re.compile(rf"(model|diffusion_pytorch_model){suffix}(-\d+-of-\d+)?\.safetensors")
    return sorted(p for p in (folder / part).glob("*.safetensors") if name.fullmatch(p.name))


def loaded_files(folder: Path, part: str, variant: str | None) -> list[Path]:
    """Of those, the files a part is loaded from: all its shards, if an index names some, or the one that holds everything.

    Raises ModelError if there are none, or not all.
    """
    place, files = folder / part, weight_files(folder, part, variant)
    there = sorted(p.name for p in place.glob("*.safetensors"))
    if not there:
        raise ModelError(
            f"{place}: no *.safetensors file; pickled weights are not loaded, convert them first"
        )
    if not files:
        raise ModelError(
            f"{place}: nothing of generator.variant = {variant}; there are {', '.join(there)} (model.fp16.safetensors is of "
            "generator.variant=fp16)"
        )
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    dot = f".{variant}" if variant else ""
    whole = [p for p in files if p.name == f"{stem}{dot}.safetensors"]
    names = (f"{stem}.safetensors.index{dot}.json", f"{stem}.safetensors{dot}.index.json")
    index = [place / name for name in names if (place / name).is_file()]
    if index and not (
        whole and stem == "model"
    ):  # of both, diffusers takes the shards and transformers the one file
        return indexed_files(index[0])
    if not whole:
        raise ModelError(
            f"{place}: {', '.join(p.name for p in files[:2])} and no {names[0]}, which says what is in which; copy it too, "
            f"or name a single file {stem}{dot}.safetensors"
        )
    return whole


def check_folder(folder: Path, variant: str | None = None) -> None:
    """Raises ModelError unless the folder is of a known family, complete, readable, and nothing in it is beyond the adapters.

    Weights are compared with what config.json asks for by name and shape; none is read.
    """
    _check_files(folder, variant)
    _check_weights(folder, variant)


def _check_files(folder: Path, variant: str | None) -> None:
    """What files and configs tell by themselves."""
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise ModelError(f"{folder}: no model_index.json; a diffusers-format folder has one")
    index = read_json(index_file)
    if index.get("_class_name") not in FAMILIES:
        raise ModelError(
            f"{index_file}: _class_name = '{index.get('_class_name')}'; allowed: {', '.join(FAMILIES)}"
        )
    for part in parts_of(index):
        if not (folder / part).is_dir():
            raise ModelError(
                f"{folder}: part '{part}' is missing; needed are {', '.join(parts_of(index))}"
            )
        for file in loaded_files(folder, part, variant) if part in WEIGHTED else []:
            read_header(file)
    check_parts(folder, index)


def _check_weights(folder: Path, variant: str | None) -> None:
    """What takes PyTorch to know, unless it is known already."""
    known = outline(model_files(folder, variant))
    if known not in CHECKED:
        check_apart("discl_ray.generate.weights:check_weights", str(folder), variant)
        CHECKED.add(known)


PUBLISHED_GB = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": 2.4,
    "stabilityai/stable-diffusion-xl-refiner-1.0": 7.5,
    "stabilityai/stable-diffusion-xl-base-1.0": 8.6,
}
"""Weights of the presets' models on a card, UNet and VAE at two bytes a number, text encoders at four: what their files say."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def weight_bytes(config: GeneratorConfig, folder: Path) -> int:
    """Memory that the weights take once loaded: the UNet and the VAE in their precision, the text encoders in float32."""
    precision = {"unet": config.dtype, "vae": config.vae_dtype}
    parts = [part for part in parts_of(read_json(folder / "model_index.json")) if part in WEIGHTED]
    files = [
        (file, precision.get(part, "float32"))
        for part in parts
        for file in weight_files(folder, part, config.variant)
    ]
    return sum(_count(file) * BYTES[dtype] for file, dtype in files)


def _count(file: Path) -> int:
    """Numbers in a safetensors file, from its header."""
    return sum(math.prod(weight.shape) for weight in read_header(file).values())


def check_generator(config: GeneratorConfig, num_steps: int, levels: Collection[int] = ()) -> Path:
    """Finds the configured model and checks everything that can be checked without loading it; returns its folder.

    `levels` are the λ to be made, in percent. Raises ModelError.
    """
    folder = find_model(config.model, config.revision, config.variant)
    _check_files(folder, config.variant)
    working_size(config, folder)
    check_steps(config, folder, num_steps, levels)
    _check_weights(folder, config.variant)
    return folder


def check_steps(
    config: GeneratorConfig, folder: Path, num_steps: int, levels: Collection[int]
) -> None:
    """Raises ModelError unless the sampler can take T steps of the model's noise schedule, beginning where λ = 0 has to."""
    SCHEDULES[config.sampler].read(
        stored_scheduler(folder), folder / "scheduler" / "scheduler_config.json"
    )
    SAMPLERS[config.sampler](scheduler_config(folder), num_steps)
    schedule = SCHEDULES[config.sampler].read(scheduler_config(folder))
    if 0 in levels and begins_late(schedule, num_steps):
        first, n = int(timesteps(schedule, num_steps)[0]), schedule.num_train_timesteps
        raise ModelError(
            f"plan.num_steps = {num_steps}: with the model's timestep_spacing = '{schedule.timestep_spacing}' the first step is at "
            f"timestep {first} of {n}, and λ = 0 would keep much of the image; "
            f"take plan.num_steps={nearest_good(schedule, num_steps)}, or leave λ = 0 out of the levels"
        )


def vae_factor(folder: Path) -> int:
    """Pixels per latent along a side."""
    return 2 ** (
        len(read_json(folder / "vae" / "config.json").get("block_out_channels") or [64]) - 1
    )


def native_size(folder: Path) -> tuple[int, int] | None:
    """(height, width) in pixels that the UNet was trained at; None if its config does not say.

    Raises ModelError if it says something else than a side or a pair.
    """
    file = folder / "unet" / "config.json"
    said = read_json(file).get("sample_size")
    if said is None:
        return None
    pair = said if isinstance(said, list) else [said, said]
    if len(pair) != 2 or not all(type(x) is int and x > 0 for x in pair):
        raise ModelError(
            f"{file}: sample_size = {said!r}; allowed: a side, [height, width] or null"
        )
    return pair[0] * vae_factor(folder), pair[1] * vae_factor(folder)


def native_side(folder: Path) -> int | None:
    """The shorter side in pixels the UNet was trained at, as far as its config says."""
    size = native_size(folder)
    return min(size) if size else None


def working_size(config: GeneratorConfig, folder: Path) -> tuple[int, int]:
    """(height, width) the UNet works at.

    Raises ModelError unless both are multiples of the VAE's factor.
    """
    factor, native = vae_factor(folder), native_size(folder)
    size = config.size or native
    if size is None:
        raise ModelError(
            f"{folder}: the UNet's config.json names no sample_size; set generator.size, e.g. generator.size=512"
        )
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < factor or height % factor or width % factor:
        near = [max(factor, round(x / factor) * factor) for x in (height, width)]
        raise ModelError(
            f"generator.size = [{height}, {width}]: multiples of {factor} are needed; the nearest is {near}"
        )
    return height, width


def stored_scheduler(folder: Path) -> dict[str, Any]:
    """The model's scheduler settings as they stand in its file."""
    return read_json(folder / "scheduler" / "scheduler_config.json")


def scheduler_config(folder: Path) -> dict[str, Any]:
    """The model's scheduler settings as they are used: for Stable Diffusion with steps_offset = 1, as its pipelines in diffusers
    repair older files; Stable Diffusion XL's leave them alone.
    """
    stored, index = stored_scheduler(folder), read_json(folder / "model_index.json")
    return {**stored, "steps_offset": 1} if FAMILIES[index["_class_name"]] == SD else stored


def scheduler_notes(config: GeneratorConfig, folder: Path) -> list[str]:
    """What the model's scheduler settings say and the sampler does not do, in sentences."""
    stored, schedule = (
        stored_scheduler(folder),
        SCHEDULES[config.sampler].read(scheduler_config(folder)),
    )
    found, place = [], "the model's scheduler_config.json"
    kind = stored.get("_class_name", schedule.stock)
    if kind != schedule.stock:
        found.append(
            f"{place} is of a {kind}: generator.sampler = {config.sampler} takes its noise schedule, not its method"
        )
    offset = stored.get("steps_offset") or 0
    if schedule.timestep_spacing == "leading" and offset != schedule.steps_offset:
        found.append(
            f"{place} has steps_offset = {offset}: 1 is taken, as diffusers does for Stable Diffusion"
        )
    for name in schedule.unbounded:
        if stored.get(name):
            found.append(
                f"{place} has {name} = {stored[name]}: not followed, because latents have no bounds to keep to"
            )
    return found


def cut_prompts(folder: Path, prompts: Iterable[str]) -> tuple[list[str], int]:
    """The distinct prompts that are longer than the model's tokenizer takes, sorted, and how many tokens it takes."""
    from transformers import CLIPTokenizer

    name = "tokenizer" if (folder / "tokenizer").is_dir() else "tokenizer_2"
    tokenizer = CLIPTokenizer.from_pretrained(folder / name)
    texts = sorted(set(prompts))
    tokens = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    limit = tokenizer.model_max_length
    return [text for text, ids in zip(texts, tokens, strict=True) if len(ids) > limit], limit


def model_files(folder: Path, variant: str | None) -> dict[str, Path]:
    """Every file that decides what the model is, by its name in the folder."""
    index = read_json(folder / "model_index.json")
    files = [folder / "model_index.json"]
    for part in parts_of(index):
        files += sorted(
            p for p in (folder / part).iterdir() if p.is_file() and p.suffix != ".safetensors"
        )
        files += weight_files(folder, part, variant) if part in WEIGHTED else []
    return {file.relative_to(folder).as_posix(): file for file in files}


def fingerprint(config: GeneratorConfig, folder: Path, num_steps: int) -> str:
    """Everything besides the row that decides an image's bytes: weights, sampler, T, guidance, size, precision, codec, libraries."""
    contents = {name: file_hash(file) for name, file in model_files(folder, config.variant).items()}
    versions = {
        name: importlib.metadata.version(name)
        for name in ("torch", "diffusers", "transformers", "pillow")
    }
    fields = (
        config.sampler, num_steps, config.cfg_scale, config.text_only, working_size(config, folder), config.fit,
        config.aesthetic_score, config.negative_aesthetic_score, config.dtype, config.vae_dtype, config.compile,
        config.codec, config.quality if config.codec == "jpeg" else None,
    )  # fmt: skip
    stored, used = (
        SCHEDULES[config.sampler].read(read(folder))
        for read in (stored_scheduler, scheduler_config)
    )
    respaced = not np.array_equal(plain_timesteps(stored, num_steps), timesteps(used, num_steps))
    return stable_id(
        contents, *fields, versions, *(["respaced"] if respaced else [])
    )  # otherwise as it always was
