"""A diffusers-format folder, looked at without loading it: is it all there, what is it, and can it be used?"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from discl_ray.core.ids import file_hash, stable_id
from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.samplers import SAMPLERS, SCHEDULES
from discl_ray.generate.schedule import begins_late, nearest_good, plain_timesteps, timesteps

SD, SDXL = "Stable Diffusion", "Stable Diffusion XL"
FAMILIES = {
    "StableDiffusionPipeline": SD,
    "StableDiffusionImg2ImgPipeline": SD,
    "StableDiffusionXLPipeline": SDXL,
    "StableDiffusionXLImg2ImgPipeline": SDXL,
}
"""`_class_name` in model_index.json -> family. The refiner is an SDXL folder without a first text encoder."""

WEIGHTED = ("unet", "vae", "text_encoder", "text_encoder_2")
"""Parts that hold weights, where a family has them."""


def find_model(model: str, revision: str | None = None, variant: str | None = None) -> Path:
    """The local folder of `embedded`, a path, or a Hugging Face id (downloaded: the parts used, safetensors only).

    Raises ModelError if there is no such folder and nothing can be downloaded.
    """
    if model == "embedded":
        return GENERATOR
    if Path(model).is_dir():
        return Path(model)
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelError(f"generator.model = '{model}': no such folder (a Hugging Face id reads 'owner/name')")
    from huggingface_hub import snapshot_download

    suffix = f".{variant}" if variant else ""
    names = [f"{base}{suffix}{part}.safetensors" for base in ("model", "diffusion_pytorch_model") for part in ("", "-*-of-*")]
    patterns = ["model_index.json", "*/*.json", "tokenizer*/*.txt", *(f"{p}/{n}" for p in WEIGHTED for n in names)]
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's errors are many, and all of them mean this
        raise ModelError(
            f"generator.model = '{model}': neither a folder here nor to be had from the hub ({type(error).__name__}). "
            f"On a connected machine run `hf download {model}`, copy the folder, and give its path."
        ) from error


def parts_of(index: dict[str, Any]) -> tuple[str, ...]:
    """The parts a folder with this model_index.json must have."""
    optional = ("text_encoder", "tokenizer") if FAMILIES[index["_class_name"]] == SDXL else ()
    second = ("text_encoder_2", "tokenizer_2") if FAMILIES[index["_class_name"]] == SDXL else ()
    absent = {name for name in optional if index.get(name) in (None, [None, None])}
    return tuple(n for n in ("unet", "vae", "scheduler", "text_encoder", "tokenizer", *second) if n not in absent)


def weight_files(folder: Path, part: str, variant: str | None) -> list[Path]:
    """The safetensors files of a part, of one variant."""
    suffix = re.escape(f".{variant}") if variant else ""
    name = re.compile(rf"(model|diffusion_pytorch_model){suffix}(-\d+-of-\d+)?\.safetensors")
    return sorted(p for p in (folder / part).glob("*.safetensors") if name.fullmatch(p.name))


def check_folder(folder: Path, variant: str | None = None) -> None:
    """Raises ModelError unless the folder is of a known family, complete, readable, and nothing in it is beyond the adapters."""
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise ModelError(f"{folder}: no model_index.json; a diffusers-format folder has one")
    index = read_json(index_file)
    if index.get("_class_name") not in FAMILIES:
        raise ModelError(f"{index_file}: _class_name = '{index.get('_class_name')}'; allowed: {', '.join(FAMILIES)}")
    for part in parts_of(index):
        if not (folder / part).is_dir():
            raise ModelError(f"{folder}: part '{part}' is missing; needed are {', '.join(parts_of(index))}")
        if part in WEIGHTED:
            _check_weights(folder, part, variant)
    unet, vae = read_json(folder / "unet" / "config.json"), read_json(folder / "vae" / "config.json")
    if unet.get("in_channels") != vae.get("latent_channels", 4):
        raise ModelError(
            f"{folder}: the UNet takes {unet.get('in_channels')} channels and the VAE makes {vae.get('latent_channels', 4)}; "
            "inpainting, depth and upscaling models cannot do img2img"
        )
    if unet.get("time_cond_proj_dim") is not None:
        raise ModelError(f"{folder}: a distilled model that embeds its guidance (LCM); take the base model")
    if vae.get("latents_mean") is not None or vae.get("shift_factor"):
        raise ModelError(f"{folder}/vae: shifted latents (latents_mean, shift_factor) are not supported")


def _check_weights(folder: Path, part: str, variant: str | None) -> None:
    files, there = weight_files(folder, part, variant), sorted(p.name for p in (folder / part).glob("*.safetensors"))
    if not there:
        raise ModelError(f"{folder / part}: no *.safetensors file; pickled weights are not loaded, convert them first")
    if not files:
        raise ModelError(f"{folder / part}: nothing of generator.variant = {variant}; there are {', '.join(there)}")
    for file in files:
        try:
            with safe_open(file, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file}: damaged or cut short ({error}); download or copy it again") from error


def check_generator(config: GeneratorConfig, num_steps: int, levels: Collection[int] = ()) -> Path:
    """Finds the configured model and checks everything that can be checked without loading it; returns its folder.

    `levels` are the λ to be made, in percent. Raises ModelError.
    """
    folder = find_model(config.model, config.revision, config.variant)
    check_folder(folder, config.variant)
    working_size(config, folder)
    check_steps(config, folder, num_steps, levels)
    return folder


def check_steps(config: GeneratorConfig, folder: Path, num_steps: int, levels: Collection[int]) -> None:
    """Raises ModelError unless the sampler can take T steps of the model's noise schedule, beginning where λ = 0 has to."""
    SCHEDULES[config.sampler].read(stored_scheduler(folder), folder / "scheduler" / "scheduler_config.json")
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
    return 2 ** (len(read_json(folder / "vae" / "config.json")["block_out_channels"]) - 1)


def native_side(folder: Path) -> int:
    """The side in pixels the UNet was trained at."""
    return read_json(folder / "unet" / "config.json")["sample_size"] * vae_factor(folder)


def working_size(config: GeneratorConfig, folder: Path) -> tuple[int, int]:
    """(height, width) the UNet works at.

    Raises ModelError unless both are multiples of the VAE's factor.
    """
    side, factor = native_side(folder), vae_factor(folder)
    size = config.size or side
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < factor or height % factor or width % factor:
        near = [max(factor, round(x / factor) * factor) for x in (height, width)]
        raise ModelError(f"generator.size = [{height}, {width}]: multiples of {factor} are needed; the nearest is {near}")
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
    stored, schedule = stored_scheduler(folder), SCHEDULES[config.sampler].read(scheduler_config(folder))
    found, place = [], "the model's scheduler_config.json"
    kind = stored.get("_class_name", schedule.stock)
    if kind != schedule.stock:
        found.append(f"{place} is of a {kind}: generator.sampler = {config.sampler} takes its noise schedule, not its method")
    offset = stored.get("steps_offset") or 0
    if schedule.timestep_spacing == "leading" and offset != schedule.steps_offset:
        found.append(f"{place} has steps_offset = {offset}: 1 is taken, as diffusers does for Stable Diffusion")
    for name in schedule.unbounded:
        if stored.get(name):
            found.append(f"{place} has {name} = {stored[name]}: not followed, because latents have no bounds to keep to")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises ModelError if the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds {type(value).__name__}, a JSON object is needed")
    return value


def count_truncated(folder: Path, prompts: Sequence[str]) -> tuple[int, int]:
    """How many distinct prompts are longer than the model's tokenizer takes, and how many tokens it takes."""
    from transformers import CLIPTokenizer

    name = "tokenizer" if (folder / "tokenizer").is_dir() else "tokenizer_2"
    tokenizer = CLIPTokenizer.from_pretrained(folder / name)
    lengths = [len(ids) for ids in tokenizer(sorted(set(prompts)), truncation=False, verbose=False)["input_ids"]]
    return sum(n > tokenizer.model_max_length for n in lengths), tokenizer.model_max_length


def fingerprint(config: GeneratorConfig, folder: Path, num_steps: int) -> str:
    """Everything besides the row that decides an image's bytes: weights, sampler, T, guidance, size, precision, codec, libraries."""
    index = read_json(folder / "model_index.json")
    files = [folder / "model_index.json"]
    for part in parts_of(index):
        files += sorted(p for p in (folder / part).iterdir() if p.is_file() and p.suffix != ".safetensors")
        files += weight_files(folder, part, config.variant) if part in WEIGHTED else []
    contents = {file.relative_to(folder).as_posix(): file_hash(file) for file in files}
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers", "pillow")}
    fields = (
        config.sampler, num_steps, config.cfg_scale, config.text_only, working_size(config, folder), config.fit,
        config.aesthetic_score, config.negative_aesthetic_score, config.dtype, config.vae_dtype, config.compile,
        config.codec, config.quality if config.codec == "jpeg" else None,
    )  # fmt: skip
    stored, used = (SCHEDULES[config.sampler].read(read(folder)) for read in (stored_scheduler, scheduler_config))
    respaced = not np.array_equal(plain_timesteps(stored, num_steps), timesteps(used, num_steps))
    return stable_id(contents, *fields, versions, *(["respaced"] if respaced else []))  # otherwise as it always was
