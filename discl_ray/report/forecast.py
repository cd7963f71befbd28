"""A forecast of the full plan, as a table and as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from discl_ray.config import Config
from discl_ray.core.lam import pct_to_lam
from discl_ray.plan.forecast import Forecast, Level, Speed


def preview_words(forecast: Forecast, config: Config) -> str:
    """Acceptance by λ and filter mode as a table, then time, memory and disk of the full plan."""
    modes = list(forecast.levels[0].accepted)
    heads = "".join(f"{mode + '*' * (mode == forecast.mode):>11}" for mode in modes)
    calibrated = ""
    if "quantile" in modes:
        calibrated = f", quantile by {forecast.sources} real images only"
    lines = [
        "accepted of n images by each filter · * configured, with its 95 % interval"
        f"{calibrated} · full plan: without probes",
        f"  {'λ':>4} {'n':>4}{heads}{'interval':>15}{'full plan keeps':>18}",
        *(_level_line(level, modes, forecast.mode) for level in forecast.levels),
        *_costs(forecast, config),
    ]
    return "\n".join(lines)


def _level_line(level: Level, modes: list[str], configured: str) -> str:
    """A λ's line of the table."""
    cells = "".join(f"{_percent(level.accepted[mode]):>11}" for mode in modes)
    interval = "interpolated"
    if level.low is not None and level.high is not None:
        interval = f"{100 * level.low:.0f}-{_percent(level.high)}"
    keeps = "–"
    if level.to_train:
        keeps = f"{level.to_train * level.accepted[configured]:.0f} of {level.to_train}"
    lam = pct_to_lam(level.lam_pct)
    return f"  {lam:>4g} {level.shown or '–':>4}{cells}{interval:>15}{keeps:>18}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _costs(forecast: Forecast, config: Config) -> list[str]:
    """Costs of the full plan, a line each."""
    probes = forecast.images - sum(level.to_train for level in forecast.levels)
    generators = f"{forecast.generators} generator{'s' * (forecast.generators > 1)}"
    lines = [
        f"full plan · {forecast.images} images, {probes} of them probes, "
        f"{forecast.unet_steps} UNet steps, {generators}"
    ]
    if forecast.speed is None or forecast.hours is None:
        lines.append(
            "  time    not measured: the generators were done at once, "
            "or the images were there already"
        )
    else:
        lines += _time_and_memory(forecast, config, forecast.speed, forecast.hours)
    size = forecast.gigabytes
    disk = f"{size:.3g} GB" if size >= 1 else f"{1000 * size:.3g} MB"
    return [
        *lines,
        f"  disk    about {disk} of images",
        f"  kept    about {forecast.kept:.0f} images to train on by filter {forecast.mode}",
    ]


def _time_and_memory(forecast: Forecast, config: Config, speed: Speed, hours: float) -> list[str]:
    attempts = ""
    if config.plan.attempts > 1:
        attempts = f" for the first of up to {config.plan.attempts} attempts"
    measured = ""
    if speed.generators < forecast.generators:
        measured = f", measured while {speed.generators} worked"
    of_gpu = " of GPU memory" if config.generator.num_gpus else ""
    steps = forecast.unet_steps / forecast.images
    return [
        f"  time    about {_duration(hours)}{attempts}, loading is extra",
        f"          {forecast.seconds_per_image:.3g} s an image and generator: "
        f"{steps:.1f} steps at {speed.steps_per_s:.4g}/s{measured}",
        f"  memory  up to {speed.peak_bytes / 1e9:.1f} GB{of_gpu} a generator, "
        f"at generator.micro_batch={speed.micro_batch}",
    ]


def _duration(hours: float) -> str:
    """Hours, or minutes for less than one."""
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min ({hours:.2g} h)"


def preview_figures(forecast: Forecast) -> dict[str, Any]:
    """The forecast as plain values, for preview.json, from which a rerun reads `speed` back."""
    figures = asdict(forecast)
    names = ("kept", "gigabytes", "seconds_per_image", "hours")
    return figures | {name: getattr(forecast, name) for name in names}
