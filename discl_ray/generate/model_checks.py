"""Whether a model folder can be used, and its fingerprint; no weight is loaded."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection, Iterable
from itertools import compress
from pathlib import Path

import numpy as np

from discl_ray.core.apart import check_apart
from discl_ray.core.ids import file_hash, stable_id
from discl_ray.core.weights import outline, read_header, read_json
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.model_folder import WEIGHTED, find_model, loaded_files, model_files
from discl_ray.generate.model_settings import scheduler_config, stored_scheduler, working_size
from discl_ray.generate.parts import FAMILIES, check_parts, parts_of
from discl_ray.generate.samplers import SAMPLERS, SCHEDULES
from discl_ray.generate.schedule import begins_late, nearest_good, plain_timesteps, timesteps

CHECKED = {"cf032c8c605318ef987d77d07f6b48e3"}
"""Outlines of models whose weights passed: the embedded one's, and those this process checked."""

LIBRARIES = ("torch", "diffusers", "transformers", "pillow")
"""Packages whose versions may change an image's bytes."""


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
    pipeline = index.get("_class_name")
    if pipeline not in FAMILIES:
        allowed = ", ".join(FAMILIES)
        raise ModelError(f"{index_file}: _class_name = '{pipeline}'; allowed: {allowed}")
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


def check_generator(config: GeneratorConfig, num_steps: int, lams: Collection[int] = ()) -> Path:
    """The configured model's folder, after every check that is possible without loading it.

    `lams` are the λ to be made, in percent. Raises ModelError.
    """
    folder = find_model(config.model, config.revision, config.variant)
    _check_files(folder, config.variant)
    working_size(config, folder)
    check_steps(config, folder, num_steps, lams)
    # last, because it may start a process that loads PyTorch
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


def cut_prompts(folder: Path, prompts: Iterable[str]) -> tuple[list[str], int]:
    """The distinct prompts that the model's tokenizer cuts, sorted, and the tokens it takes."""
    from transformers import CLIPTokenizer

    # both of SDXL's split texts alike; the refiner has the second alone
    name = "tokenizer" if (folder / "tokenizer").is_dir() else "tokenizer_2"
    tokenizer = CLIPTokenizer.from_pretrained(folder / name)
    texts = sorted(set(prompts))
    # verbose would warn of a text that is too long
    tokens = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    limit = tokenizer.model_max_length
    too_long = [len(ids) > limit for ids in tokens]
    return list(compress(texts, too_long)), limit


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
    stored = kind.read(stored_scheduler(folder))
    repaired = kind.read(scheduler_config(folder))
    plain = plain_timesteps(stored, num_steps)
    used = timesteps(repaired, num_steps)
    return not np.array_equal(plain, used)
