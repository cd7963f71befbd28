"""What a model folder's configs say: the sizes it works at, and its scheduler's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from discl_ray.core.weights import read_json
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.parts import SD, family_of
from discl_ray.generate.samplers import SCHEDULES


def vae_factor(folder: Path) -> int:
    """Pixels per latent along a side: each block but the last halves the side."""
    config = read_json(folder / "vae" / "config.json")
    blocks = config.get("block_out_channels") or [64]  # as in diffusers: one block
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
    height, width = [side * factor for side in sides]
    return height, width


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
    return {**stored, "steps_offset": 1} if family_of(index) == SD else stored


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
