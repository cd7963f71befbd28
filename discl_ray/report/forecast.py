"""A forecast of the full plan, as a table and as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

from discl_ray.config import Config
from discl_ray.core.lam import pct_to_lam
from discl_ray.plan.forecast import Forecast, Level, Speed

TITLE = "accepted of n images by each filter · * configured, with its 95 % interval"
"""Above the table."""


def preview_words(forecast: Forecast, config: Config) -> str:
    """Acceptance by λ and filter mode as a table, then time, memory and disk of the full plan."""
    modes = list(forecast.levels[0].accepted)
    title = TITLE
    if "quantile" in modes:
        title += f", quantile by {forecast.sources} real images only"
    lines = [f"{title} · full plan: without probes"]
    head = _head_line(modes, forecast.mode)
    lines.append(str(head))
    for level in forecast.levels:
        line = _level_line(level, modes, forecast.mode)
        lines.append(str(line))
    lines += _costs(forecast, config)
    return "\n".join(lines)


class _Line(NamedTuple):
    """A line of the table, in columns of fixed widths."""

    lam: str
    shown: str
    """How many images the shares are of."""
    by_mode: list[str]
    """Accepted shares."""
    interval: str
    """Of the configured mode."""
    keeps: str
    """How many images of the full plan it would keep."""

    def __str__(self) -> str:
        lam = self.lam.rjust(4)
        shown = self.shown.rjust(4)
        modes = [cell.rjust(11) for cell in self.by_mode]
        interval = self.interval.rjust(15)
        keeps = self.keeps.rjust(18)
        start = f"  {lam} {shown}"
        cells = [start, *modes, interval, keeps]
        return "".join(cells)


def _head_line(modes: list[str], configured: str) -> _Line:
    """The heads of the table; the configured mode has a star."""
    heads: list[str] = []
    for mode in modes:
        star = "*" if mode == configured else ""
        heads.append(f"{mode}{star}")
    return _Line("λ", "n", heads, "interval", "full plan keeps")


def _level_line(level: Level, modes: list[str], configured: str) -> _Line:
    """A λ's line of the table."""
    lam = pct_to_lam(level.lam_pct)
    accepted = level.accepted
    keeps = "–"
    if level.to_train:
        kept = level.to_train * accepted[configured]
        keeps = f"{kept:.0f} of {level.to_train}"
    return _Line(
        lam=f"{lam:g}",
        shown=str(level.shown or "–"),
        by_mode=[_percent(accepted[mode]) for mode in modes],
        interval=_interval(level),
        keeps=keeps,
    )


def _interval(level: Level) -> str:
    """The 95 % interval of the configured mode's acceptance; not every λ was tried."""
    low = level.low
    high = level.high
    if low is None or high is None:
        return "interpolated"
    start = _percent(low).removesuffix("%")
    end = _percent(high)
    return f"{start}-{end}"


def _percent(share: float) -> str:
    """A share as a whole percentage."""
    percentage = 100 * share
    return f"{percentage:.0f}%"


def _costs(forecast: Forecast, config: Config) -> list[str]:
    """Costs of the full plan, a line each."""
    to_train = sum(level.to_train for level in forecast.levels)
    probes = forecast.images - to_train
    plural = "s" if forecast.generators > 1 else ""
    images = f"{forecast.images} images, {probes} of them probes"
    generators = f"{forecast.generators} generator{plural}"
    steps = f"{forecast.unet_steps} UNet steps"
    lines = [f"full plan · {images}, {steps}, {generators}"]
    speed = forecast.speed
    hours = forecast.hours
    if speed is None or hours is None:
        lines.append(
            "  time    not measured: the generators were done at once, "
            "or the images were there already"
        )
    else:
        lines += _time_and_memory(forecast, config, speed, hours)
    disk = _disk_size(forecast.gigabytes)
    lines.append(f"  disk    about {disk} of images")
    kept = f"about {forecast.kept:.0f} images to train on"
    lines.append(f"  kept    {kept} by filter {forecast.mode}")
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
        most = config.plan.attempts
        attempts = f" for the first of up to {most} attempts"
    measured = ""
    if speed.generators < forecast.generators:
        measured = f", measured while {speed.generators} worked"
    steps = forecast.unet_steps / forecast.images
    seconds = f"{forecast.seconds_per_image:.3g} s an image and generator"
    steps_per_s = f"{speed.steps_per_s:.4g}/s"
    rate = f"{steps:.1f} steps at {steps_per_s}"
    peak_gb = speed.peak_bytes / 1e9
    of_gpu = " of GPU memory" if config.generator.num_gpus else ""
    memory = f"{peak_gb:.1f} GB{of_gpu}"
    return [
        f"  time    about {duration}{attempts}, loading is extra",
        f"          {seconds}: {rate}{measured}",
        f"  memory  up to {memory} a generator, at generator.micro_batch={speed.micro_batch}",
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
