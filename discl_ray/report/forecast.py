"""A forecast of the full plan, as a table and as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from discl_ray.config import Config
from discl_ray.core.lam import pct_to_lam
from discl_ray.plan.forecast import Forecast, Level, Speed

TITLE = "accepted of n images by each filter · * configured, with its 95 % interval"


def preview_words(forecast: Forecast, config: Config) -> str:
    """Acceptance by λ and filter mode as a table, then time, memory and disk of the full plan."""
    modes = list(forecast.levels[0].accepted)
    title = TITLE
    if "quantile" in modes:
        title += f", quantile by {forecast.sources} real images only"
    lines = [f"{title} · full plan: without probes", _head_line(modes, forecast.mode)]
    for level in forecast.levels:
        lines.append(_level_line(level, modes, forecast.mode))
    lines += _costs(forecast, config)
    return "\n".join(lines)


def _head_line(modes: list[str], configured: str) -> str:
    """The heads of the table; the configured mode has a star."""
    heads = [f"{mode}*" if mode == configured else mode for mode in modes]
    return _line("λ", "n", heads, "interval", "full plan keeps")


def _level_line(level: Level, modes: list[str], configured: str) -> str:
    """A λ's line of the table."""
    lam = pct_to_lam(level.lam_pct)
    shares = [_percent(level.accepted[mode]) for mode in modes]
    keeps = "–"
    if level.to_train:
        kept = level.to_train * level.accepted[configured]
        keeps = f"{kept:.0f} of {level.to_train}"
    shown = str(level.shown or "–")
    return _line(f"{lam:g}", shown, shares, _interval(level), keeps)


def _line(lam: str, shown: str, by_mode: list[str], interval: str, keeps: str) -> str:
    """A line of the table, in columns of fixed widths."""
    start = f"  {lam:>4} {shown:>4}"
    modes = "".join(f"{cell:>11}" for cell in by_mode)
    return f"{start}{modes}{interval:>15}{keeps:>18}"


def _interval(level: Level) -> str:
    """The 95 % interval of the configured mode's acceptance; not every λ was tried."""
    if level.low is None or level.high is None:
        return "interpolated"
    low = 100 * level.low
    return f"{low:.0f}-{_percent(level.high)}"


def _percent(share: float) -> str:
    """A share as a whole percentage."""
    percentage = 100 * share
    return f"{percentage:.0f}%"


def _costs(forecast: Forecast, config: Config) -> list[str]:
    """Costs of the full plan, a line each."""
    to_train = sum(level.to_train for level in forecast.levels)
    probes = forecast.images - to_train
    plural = "s" if forecast.generators > 1 else ""
    lines = [
        f"full plan · {forecast.images} images, {probes} of them probes, "
        f"{forecast.unet_steps} UNet steps, {forecast.generators} generator{plural}"
    ]
    if forecast.speed is None or forecast.hours is None:
        lines.append(
            "  time    not measured: the generators were done at once, "
            "or the images were there already"
        )
    else:
        lines += _time_and_memory(forecast, config, forecast.speed, forecast.hours)
    disk = _disk_size(forecast.gigabytes)
    lines.append(f"  disk    about {disk} of images")
    lines.append(
        f"  kept    about {forecast.kept:.0f} images to train on by filter {forecast.mode}"
    )
    return lines


def _disk_size(gigabytes: float) -> str:
    """A size in GB, or in MB below one GB."""
    if gigabytes >= 1:
        return f"{gigabytes:.3g} GB"
    megabytes = 1000 * gigabytes
    return f"{megabytes:.3g} MB"


def _time_and_memory(forecast: Forecast, config: Config, speed: Speed, hours: float) -> list[str]:
    """Time and memory of the full plan at a measured speed, a line each."""
    duration = _duration(hours)
    attempts = ""
    if config.plan.attempts > 1:
        attempts = f" for the first of up to {config.plan.attempts} attempts"
    measured = ""
    if speed.generators < forecast.generators:
        measured = f", measured while {speed.generators} worked"
    steps = forecast.unet_steps / forecast.images
    peak_gb = speed.peak_bytes / 1e9
    of_gpu = " of GPU memory" if config.generator.num_gpus else ""
    return [
        f"  time    about {duration}{attempts}, loading is extra",
        f"          {forecast.seconds_per_image:.3g} s an image and generator: "
        f"{steps:.1f} steps at {speed.steps_per_s:.4g}/s{measured}",
        f"  memory  up to {peak_gb:.1f} GB{of_gpu} a generator, "
        f"at generator.micro_batch={speed.micro_batch}",
    ]


def _duration(hours: float) -> str:
    """Hours, or minutes for less than one."""
    if hours >= 1:
        return f"{hours:.1f} h"
    minutes = 60 * hours
    return f"{minutes:.1f} min ({hours:.2g} h)"


def preview_figures(forecast: Forecast) -> dict[str, Any]:
    """The forecast as plain values, for preview.json, from which a rerun reads `speed` back."""
    figures = asdict(forecast)
    figures["kept"] = forecast.kept
    figures["gigabytes"] = forecast.gigabytes
    figures["seconds_per_image"] = forecast.seconds_per_image
    figures["hours"] = forecast.hours
    return figures
