"""What a preview says: a sheet of its images with every filter's verdict, and the forecast in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from textwrap import fill
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from discl_ray.config import Config
from discl_ray.core.lam import pct_to_lam
from discl_ray.core.sources import image_bytes
from discl_ray.errors import ImageError
from discl_ray.plan.forecast import Forecast, passed
from discl_ray.report.acceptance import rule_words
from discl_ray.report.sheet import FAINT, INK, PAPER, RED, font_of, png_of, thumbnail, with_note
from discl_ray.spectrum.config import FilterConfig

SIDE, COLUMN, ROW, LEFT, TOP, BETWEEN, MARGIN, WIDTH = 96, 108, 124, 104, 130, 18, 16, 520
"""Pixels: an image, the pitch of columns and of rows, where images begin, the space between two sources, the legend's margin and
the least width."""
GREEN, PALE = (22, 130, 70), (232, 230, 224)
Verdicts = Mapping[str, NDArray[np.bool_]]


def preview_sheet(
    spectrum: pa.Table, sources: pa.Table, config: FilterConfig, note: str = ""
) -> bytes:
    """A PNG: a row for each source and replica, a column for each λ, the real image last.

    Under each image stand its text_sim, its rank, and a mark for every filter mode. `spectrum` needs images and verdicts, `sources`
    is SAMPLES. A `note` stands in red above it.
    """
    verdicts = passed(spectrum, config)
    cells = spectrum.select(
        [
            "sample_id",
            "lam_pct",
            "replica",
            "image",
            "error",
            "text_sim",
            "text_rank",
            "source_text_sim",
        ]
    )
    places = {
        (c["sample_id"], c["replica"], c["lam_pct"]): (i, c)
        for i, c in enumerate(cells.to_pylist())
    }
    levels, replicas = (sorted(set(spectrum[name].to_pylist())) for name in ("lam_pct", "replica"))
    real = {
        c["sample_id"]: c["source_text_sim"]
        for _, c in places.values()
        if c["source_text_sim"] is not None
    }
    shown = sorted(sources.to_pylist(), key=lambda s: s["label"])
    block = len(replicas) * ROW + BETWEEN
    sheet = Image.new(
        "RGB", (max(WIDTH, LEFT + (len(levels) + 1) * COLUMN + 8), TOP + len(shown) * block), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    _legend(sheet, draw, config, verdicts)
    for column, name in enumerate([*(f"λ = {pct_to_lam(p):g}" for p in levels), "real"]):
        draw.text(
            (LEFT + column * COLUMN + SIDE // 2, TOP - 14), name, INK, font=font_of(14), anchor="mm"
        )
    for number, source in enumerate(shown):
        top = TOP + number * block
        middle = top + (len(replicas) - 1) * ROW // 2  # one real image for all replicas of its row
        name = fill(str(source["class_name"]), 12)
        draw.text(
            (LEFT - 14, middle + SIDE // 2), name, INK, font=font_of(13), anchor="rm", align="right"
        )
        _image(
            sheet,
            draw,
            (LEFT + len(levels) * COLUMN, middle),
            _bytes_of(source["image"]),
            "unreadable",
        )
        _score(draw, (LEFT + len(levels) * COLUMN, middle), real.get(source["sample_id"]), None)
        for line, replica in enumerate(replicas):
            for column, lam_pct in enumerate(levels):
                i, cell = places[source["sample_id"], replica, lam_pct]
                x, y = LEFT + column * COLUMN, top + line * ROW
                _image(sheet, draw, (x, y), cell["image"]["bytes"], cell["error"] or "no image")
                _score(draw, (x, y), cell["text_sim"], cell["text_rank"])
                right = x + SIDE
                for mode in reversed(verdicts):
                    mark = _mark(bool(verdicts[mode][i]), mode == config.mode)
                    right -= mark.width
                    sheet.paste(mark, (right, y + SIDE + 10 - mark.height // 2))
                    right -= 3
    return png_of(with_note(sheet, note))


def _image(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    data: bytes | None,
    reason: str,
) -> None:
    """An image, or an empty square that says why there is none."""
    try:
        sheet.paste(thumbnail(data or b"", SIDE), at)
    except ImageError:
        draw.rectangle((*at, at[0] + SIDE - 1, at[1] + SIDE - 1), fill=PALE)
        draw.text(
            (at[0] + SIDE // 2, at[1] + SIDE // 2),
            reason.replace("_", "\n"),
            FAINT,
            font=font_of(11),
            anchor="mm",
        )


def _bytes_of(image: Mapping[str, Any]) -> bytes | None:
    """A real image's bytes; none if they cannot be read any more."""
    try:
        return image_bytes(image)
    except OSError:
        return None


def _score(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text_sim: float | None, rank: int | None
) -> None:
    """text_sim, and the rank if there is one, under an image."""
    if text_sim is not None:
        text = f"{text_sim:.2f}" + (f" · {rank}" if rank is not None else "")
        draw.text((at[0], at[1] + SIDE + 10), text, INK, font=font_of(11), anchor="lm")


@cache
def _mark(ok: bool, configured: bool) -> Image.Image:
    """A green disc or a red cross; small and pale if the mode is not the configured one."""
    side, fine = (12 if configured else 9), 8
    strength = 1.0 if configured else 0.5
    colour = tuple(
        round(strength * c + (1 - strength) * p)
        for c, p in zip(GREEN if ok else RED, PAPER, strict=True)
    )
    mark = Image.new("RGB", (side * fine, side * fine), PAPER)
    draw, end, margin = ImageDraw.Draw(mark), side * fine - 1, side * fine // 8
    if ok:
        draw.ellipse((margin, margin, end - margin, end - margin), fill=colour)
    else:
        for line in (
            (margin, margin, end - margin, end - margin),
            (margin, end - margin, end - margin, margin),
        ):
            draw.line(line, fill=colour, width=side * fine // 5)
    return mark.resize((side, side), Image.Resampling.LANCZOS)


def _legend(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, config: FilterConfig, verdicts: Verdicts
) -> None:
    """What stands under the images."""
    draw.text(
        (MARGIN, 18),
        "text_sim · rank of the own class, then what each filter says:",
        INK,
        font=font_of(12),
        anchor="lm",
    )
    for line, mode in enumerate(verdicts):
        configured, y = mode == config.mode, 40 + 18 * line
        for column, ok in enumerate((True, False)):
            mark = _mark(ok, configured)
            sheet.paste(mark, (MARGIN + 8 + 18 * column - mark.width // 2, y - mark.height // 2))
        text = f"{mode}: {rule_words(config, mode)}" + " (configured)" * configured
        draw.text(
            (MARGIN + 44, y), text, INK if configured else FAINT, font=font_of(12), anchor="lm"
        )


def preview_words(forecast: Forecast, config: Config) -> str:
    """Acceptance by λ and mode as a table, then time, memory and disk of the full plan."""
    modes = list(forecast.levels[0].accepted)
    heads = "".join(f"{mode + '*' * (mode == forecast.mode):>11}" for mode in modes)
    calibrated = f", quantile by {forecast.sources} real images only" * ("quantile" in modes)
    lines = [
        f"accepted of n images by each filter · * configured, with its 95 % interval{calibrated} · full plan: without probes",
        f"  {'λ':>4} {'n':>4}{heads}{'interval':>15}{'full plan keeps':>18}",
    ]
    for level in forecast.levels:
        cells = "".join(f"{f'{100 * level.accepted[mode]:.0f}%':>11}" for mode in modes)
        interval = (
            "interpolated"
            if level.low is None or level.high is None
            else f"{100 * level.low:.0f}-{100 * level.high:.0f}%"
        )
        keeps = (
            f"{level.to_train * level.accepted[forecast.mode]:.0f} of {level.to_train}"
            if level.to_train
            else "–"
        )
        lines.append(
            f"  {pct_to_lam(level.lam_pct):>4g} {level.shown or '–':>4}{cells}{interval:>15}{keeps:>18}"
        )
    return "\n".join([*lines, *_costs(forecast, config)])


def _costs(forecast: Forecast, config: Config) -> list[str]:
    """The full plan in numbers, a line each."""
    speed, hours, several = forecast.speed, forecast.hours, "s" * (forecast.generators > 1)
    probes = forecast.images - sum(level.to_train for level in forecast.levels)
    images = f"{forecast.images} images, {probes} of them probes"
    lines = [
        f"full plan · {images}, {forecast.unet_steps} UNet steps, {forecast.generators} generator{several}"
    ]
    if speed is None or hours is None:
        lines.append(
            "  time    not measured: the generators were done at once, or the images were there already"
        )
    else:
        again = (
            f" for the first of up to {config.plan.attempts} attempts"
            if config.plan.attempts > 1
            else ""
        )
        idle = (
            f", measured while {speed.generators} worked"
            if speed.generators < forecast.generators
            else ""
        )
        lines += [
            f"  time    about {_duration(hours)}{again}, loading is extra",
            f"          {forecast.seconds_per_image:.3g} s an image and generator: "
            f"{forecast.unet_steps / forecast.images:.1f} steps at {speed.steps_per_s:.4g}/s{idle}",
        ]
        lines.append(
            f"  memory  up to {speed.peak_bytes / 1e9:.1f} GB{' of GPU memory' * bool(config.generator.num_gpus)} a generator, "
            f"at generator.micro_batch={speed.micro_batch}"
        )
    size = forecast.gigabytes
    lines.append(
        f"  disk    about {f'{size:.3g} GB' if size >= 1 else f'{1000 * size:.3g} MB'} of images"
    )
    lines.append(
        f"  kept    about {forecast.kept:.0f} images to train on by filter {forecast.mode}"
    )
    return lines


def _duration(hours: float) -> str:
    """Hours, and minutes while those are easier to grasp."""
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min ({hours:.2g} h)"


def preview_figures(forecast: Forecast) -> dict[str, Any]:
    """The forecast as plain values, for preview.json; `speed` is what a rerun that makes nothing reads back."""
    figures = asdict(forecast)
    names = ("kept", "gigabytes", "seconds_per_image", "hours")
    return {**figures, **{name: getattr(forecast, name) for name in names}}
