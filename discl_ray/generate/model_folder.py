"""Checks and settings of a diffusers-format folder, without loading its weights."""

from __future__ import annotations

import importlib.metadata
import math
import re
from collections.abc import Collection, Iterable
from itertools import compress
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
"""Outlines of models whose weights passed: the embedded one's, and those this process checked."""

SINGLE = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
"""Suffixes of single files that hold a whole model, as other programs use them."""


def find_model(model: str, revision: str | None = None, variant: str | None = None) -> Path:
    """The local folder of `embedded`, a path, or a Hugging Face id.

    Of an id only the parts used are downloaded, as safetensors. Raises ModelError if there is no
    such folder and nothing can be downloaded.
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

    patterns = _download_patterns(variant)
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub raises many kinds, for one reason
        raise ModelError(
            f"generator.model = '{model}': not a folder here, and not available from the hub "
            f"({type(error).__name__}). On a connected machine run `hf download {model}`, copy the "
            "folder, and give its path."
        ) from error


def _download_patterns(variant: str | None) -> list[str]:
    """The files of a repository that are used: configs, tokenizers, and one variant's weights."""
    patterns = ["model_index.json", "*/*.json", "tokenizer*/*.txt"]
    suffix = f".{variant}" if variant else ""
    for part in WEIGHTED:
        for stem in ("model", "diffusion_pytorch_model"):
            patterns.append(f"{part}/{stem}{suffix}.safetensors")
            patterns.append(f"{part}/{stem}{suffix}-*-of-*.safetensors")
    return patterns


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
    suffix = re.escape(f".{variant}") if variant else ""
    name = re.compile(rf"(model|diffusion_pytorch_model){suffix}(-\d+-of-\d+)?\.safetensors")
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
    dot = f".{variant}" if variant else ""
    whole = f"{stem}{dot}.safetensors"
    single = [path for path in files if path.name == whole]
    names = (f"{stem}.safetensors.index{dot}.json", f"{stem}.safetensors{dot}.index.json")
    indices = [place / name for name in names]
    index = [path for path in indices if path.is_file()]
    # of both, diffusers loads the shards and transformers the single file
    if index and not (single and stem == "model"):
        return indexed_files(index[0])
    if not single:
        some = ", ".join(path.name for path in files[:2])
        raise ModelError(
            f"{place}: {some} and no {names[0]}, which says what is in which; copy it too, or name "
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


def check_folder(folder: Path, variant: str | None = None) -> None:
    """Raises ModelError unless the folder is complete, readable, and of a supported kind.

    Weights are compared with what config.json asks for by name and shape; none is read.
    """
    _check_files(folder, variant)
    _check_weights(folder, variant)


def _check_files(folder: Path, variant: str | None) -> None:
    """The checks that need files and configs alone."""
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise ModelError(f"{folder}: no model_index.json; a diffusers-format folder has one")
    index = read_json(index_file)
    family = index.get("_class_name")
    if family not in FAMILIES:
        allowed = ", ".join(FAMILIES)
        raise ModelError(f"{index_file}: _class_name = '{family}'; allowed: {allowed}")
    parts = parts_of(index)
    for part in parts:
        if not (folder / part).is_dir():
            needed = ", ".join(parts)
            raise ModelError(f"{folder}: part '{part}' is missing; needed are {needed}")
        if part in WEIGHTED:
            for file in loaded_files(folder, part, variant):
                read_header(file)
    check_parts(folder, index)


def _check_weights(folder: Path, variant: str | None) -> None:
    """The checks that need PyTorch, in a process of their own; skipped for a folder seen before."""
    files = model_files(folder, variant)
    found = outline(files)
    if found not in CHECKED:
        check_apart("discl_ray.generate.weights:check_weights", str(folder), variant)
        CHECKED.add(found)


PUBLISHED_GB = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": 2.4,
    "stabilityai/stable-diffusion-xl-refiner-1.0": 7.5,
    "stabilityai/stable-diffusion-xl-base-1.0": 8.6,
}
"""GPU memory of the presets' weights, by the sizes of their files: UNet and VAE at two bytes a
number, text encoders at four."""

LIBRARIES = ("torch", "diffusers", "transformers", "pillow")
"""Packages whose versions may change an image's bytes."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def weight_bytes(config: GeneratorConfig, folder: Path) -> int:
    """Memory of the loaded weights: UNet and VAE in their precision, text encoders in float32."""
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


def check_generator(config: GeneratorConfig, num_steps: int, lams: Collection[int] = ()) -> Path:
    """The configured model's folder, after every check that is possible without loading it.

    `lams` are the λ to be made, in percent. Raises ModelError.
    """
    folder = find_model(config.model, config.revision, config.variant)
    _check_files(folder, config.variant)
    working_size(config, folder)
    check_steps(config, folder, num_steps, lams)
    _check_weights(folder, config.variant)
    return folder


def check_steps(
    config: GeneratorConfig, folder: Path, num_steps: int, lams: Collection[int]
) -> None:
    """Raises ModelError unless the sampler can take T steps of the model's noise schedule.

    For λ = 0 they have to begin where the image is mostly noise.
    """
    kind = SCHEDULES[config.sampler]
    file = folder / "scheduler" / "scheduler_config.json"
    # as it is stored first: the repaired one may hide what is wrong with it
    kind.read(stored_scheduler(folder), file)
    used = scheduler_config(folder)
    SAMPLERS[config.sampler](used, num_steps)
    schedule = kind.read(used)
    if 0 in lams and begins_late(schedule, num_steps):
        steps = timesteps(schedule, num_steps)
        first = int(steps[0])
        spacing = schedule.timestep_spacing
        n = schedule.num_train_timesteps
        good = nearest_good(schedule, num_steps)
        raise ModelError(
            f"plan.num_steps = {num_steps}: with the model's timestep_spacing = "
            f"'{spacing}' the first step is at timestep {first} of "
            f"{n}, and λ = 0 would keep much of the image; take "
            f"plan.num_steps={good}, or leave λ = 0 out of the levels"
        )


def vae_factor(folder: Path) -> int:
    """Pixels per latent along a side: each block but the last halves the side."""
    config = read_json(folder / "vae" / "config.json")
    blocks = config.get("block_out_channels") or [64]
    return 2 ** (len(blocks) - 1)


def native_size(folder: Path) -> tuple[int, int] | None:
    """(height, width) in pixels that the UNet was trained at; None if its config does not say.

    Raises ModelError if it says something else than a side or a pair.
    """
    file = folder / "unet" / "config.json"
    value = read_json(file).get("sample_size")
    if value is None:
        return None
    sides = value if isinstance(value, list) else [value, value]
    are_sides = all(map(_is_side, sides))
    if len(sides) != 2 or not are_sides:
        raise ModelError(
            f"{file}: sample_size = {value!r}; allowed: a side, [height, width] or null"
        )
    factor = vae_factor(folder)
    height, width = sides
    return height * factor, width * factor


def _is_side(value: Any) -> bool:
    """Whether it is a whole number of pixels; JSON's true is no number."""
    return type(value) is int and value > 0


def native_side(folder: Path) -> int | None:
    """The shorter side in pixels the UNet was trained at; None if its config does not say."""
    size = native_size(folder)
    return min(size) if size else None


def working_size(config: GeneratorConfig, folder: Path) -> tuple[int, int]:
    """(height, width) the UNet works at.

    Raises ModelError unless both are multiples of the VAE's factor.
    """
    factor = vae_factor(folder)
    native = native_size(folder)  # before all: it says whether the config is valid
    size = config.size or native
    if size is None:
        raise ModelError(
            f"{folder}: the UNet's config.json names no sample_size; set generator.size, e.g. "
            "generator.size=512"
        )
    height, width = (size, size) if isinstance(size, int) else size
    near = [_nearest_multiple(side, factor) for side in (height, width)]
    if near != [height, width]:
        raise ModelError(
            f"generator.size = [{height}, {width}]: multiples of {factor} are needed; the nearest "
            f"is {near}"
        )
    return height, width


def _nearest_multiple(side: int, factor: int) -> int:
    """The multiple of `factor` nearest to a side; at least one."""
    count = round(side / factor)
    return max(factor, count * factor)


def stored_scheduler(folder: Path) -> dict[str, Any]:
    """The model's scheduler settings as they stand in its file."""
    return read_json(folder / "scheduler" / "scheduler_config.json")


def scheduler_config(folder: Path) -> dict[str, Any]:
    """The model's scheduler settings as they are used.

    For Stable Diffusion with steps_offset = 1, as its pipelines in diffusers repair older files;
    those of Stable Diffusion XL leave them alone.
    """
    stored = stored_scheduler(folder)
    index = read_json(folder / "model_index.json")
    family = FAMILIES[index["_class_name"]]
    return {**stored, "steps_offset": 1} if family == SD else stored


def scheduler_notes(config: GeneratorConfig, folder: Path) -> list[str]:
    """The model's scheduler settings that the sampler does not follow, a sentence each."""
    stored = stored_scheduler(folder)
    schedule = SCHEDULES[config.sampler].read(scheduler_config(folder))
    notes: list[str] = []
    file = "the model's scheduler_config.json"
    kind = stored.get("_class_name", schedule.stock)
    if kind != schedule.stock:
        notes.append(
            f"{file} is of a {kind}: generator.sampler = {config.sampler} takes its noise "
            "schedule, not its method"
        )
    offset = stored.get("steps_offset") or 0
    if schedule.timestep_spacing == "leading" and offset != schedule.steps_offset:
        notes.append(
            f"{file} has steps_offset = {offset}: 1 is taken, as diffusers does for Stable "
            "Diffusion"
        )
    for name in schedule.unbounded:
        value = stored.get(name)
        if value:
            notes.append(
                f"{file} has {name} = {value}: not followed, because latents have no "
                "bounds to keep to"
            )
    return notes


def cut_prompts(folder: Path, prompts: Iterable[str]) -> tuple[list[str], int]:
    """The distinct prompts that the model's tokenizer cuts, sorted, and the tokens it takes."""
    from transformers import CLIPTokenizer

    name = "tokenizer" if (folder / "tokenizer").is_dir() else "tokenizer_2"
    tokenizer = CLIPTokenizer.from_pretrained(folder / name)
    texts = sorted(set(prompts))
    tokens = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    limit = tokenizer.model_max_length
    too_long = [len(ids) > limit for ids in tokens]
    return list(compress(texts, too_long)), limit


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


def fingerprint(config: GeneratorConfig, folder: Path, num_steps: int) -> str:
    """Hash of everything besides the row that decides an image's bytes."""
    files = model_files(folder, config.variant)
    contents = {name: file_hash(file) for name, file in files.items()}
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    # the order is part of the hash
    fields = (
        config.sampler,
        num_steps,
        config.cfg_scale,
        config.text_only,
        working_size(config, folder),
        config.fit,
        config.aesthetic_score,
        config.negative_aesthetic_score,
        config.dtype,
        config.vae_dtype,
        config.compile,
        config.codec,
        config.quality if config.codec == "jpeg" else None,
    )
    # only where the timesteps are not those of earlier versions, so that all other names stay
    extra = ["respaced"] if _is_respaced(config, folder, num_steps) else []
    return stable_id(contents, *fields, versions, *extra)


def _is_respaced(config: GeneratorConfig, folder: Path, num_steps: int) -> bool:
    """Whether the timesteps are not those that the stored settings give by diffusers' formula."""
    kind = SCHEDULES[config.sampler]
    plain = plain_timesteps(kind.read(stored_scheduler(folder)), num_steps)
    used = timesteps(kind.read(scheduler_config(folder)), num_steps)
    return not np.array_equal(plain, used)
