"""What a preview, few sources at more λ, says about the whole plan.

Everything here is pure. `synthesize.run.preview_of` puts the small run together, `jobs/preview.py`
makes and shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.cluster.heartbeat import GeneratorSigns
from discl_ray.core.columns import counts, rows_where
from discl_ray.core.lam import check_grid, lam_to_pct, num_denoising_steps
from discl_ray.errors import ConfigError
from discl_ray.plan.config import PlanConfig, PreviewConfig
from discl_ray.plan.grid import PlanSize
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.filter import verdicts


def preview_plan(plan: PlanConfig, preview: PreviewConfig) -> PlanConfig:
    """The grid of a preview: its own λ and replicas, one attempt, and the full plan's rest.

    Raises ConfigError if no λ has a step, or two have equally many.
    """
    steps = plan.num_steps
    lams = tuple(lam for lam in preview.lams if num_denoising_steps(lam_to_pct(lam), steps))
    if not lams:
        shown = ", ".join(f"{lam:g}" for lam in preview.lams)
        raise ConfigError(
            f"preview.lams = [{shown}]: no level leaves a step of plan.num_steps = {steps}; add "
            "λ = 0"
        )
    if problems := check_grid(lams, steps):
        raise ConfigError(f"preview.lams: {'; '.join(problems)} (plan.num_steps = {steps})")
    update = {
        "lams": lams,
        "replicas": preview.replicas,
        "probe_replicas": 1,
        "attempts": 1,
        "until_text_sim": None,
    }
    return plan.model_copy(update=update)


def pick_sources(hard: pa.Table, count: int) -> pa.Table:
    """Up to `count` hard training images (SAMPLES rows) in the table's order.

    A class gives its second image after every class has given its first; of an incomplete turn the
    classes are evenly spaced. Within a class the order is that of the images' hashes, so that it
    does not depend on the reader's.
    """
    classes = _by_class(hard)
    chosen: list[int] = []
    for turn in zip_longest(*classes.values()):
        found = [i for i in turn if i is not None]
        left = count - len(chosen)
        chosen += _evenly(found, left)
    rows = pa.array(sorted(chosen), pa.int64())
    return hard.take(rows)


def _by_class(samples: pa.Table) -> dict[int, list[int]]:
    """Label -> its training images' rows, ordered by hash; labels ascend."""
    split = samples["split"].to_pylist()
    label = samples["label"].to_pylist()
    sha256 = samples["sha256"].to_pylist()
    train = [i for i, name in enumerate(split) if name == "train"]
    train.sort(key=lambda i: (label[i], sha256[i]))
    classes: dict[int, list[int]] = {}
    for i in train:
        classes.setdefault(label[i], []).append(i)
    return classes


def _evenly(values: Sequence[int], count: int) -> list[int]:
    """At most `count` of some values, evenly spaced."""
    n = len(values)
    take = min(count, n)
    return [values[k * n // take] for k in range(take)]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured of a preview's generators."""

    steps_per_s: float
    """UNet steps per second of one generator with a full batch, loading and the first step left
    out."""
    peak_bytes: int
    """Largest memory of a generator process: on a GPU torch's, else its resident size."""
    micro_batch: int
    """Rows of the smallest batch."""
    generators: int
    """How many had work to do."""

    @classmethod
    def of(cls, signs: Iterable[GeneratorSigns]) -> Speed | None:
        """From the generators' signs; None if they finished before anything was measured."""
        working = [s for s in signs if s.seconds and s.steps]
        if not working:
            return None
        steps = sum(s.steps for s in working)
        seconds = sum(s.seconds for s in working)
        return cls(
            steps_per_s=steps / seconds,
            peak_bytes=max(s.peak_bytes for s in working),
            micro_batch=min(s.micro_batch for s in working),
            generators=len(working),
        )


@dataclass(frozen=True, kw_only=True)
class Level:
    """One λ of the preview, the full plan, or both; what was not measured is interpolated."""

    lam_pct: int
    shown: int
    """Images in the preview; 0 if the level is only in the full plan."""
    accepted: dict[str, float]
    """Share in [0, 1] that a filter mode passes, by mode."""
    low: float | None
    """Lower end of the configured mode's 95 % interval (Wilson); None where nothing was
    measured."""
    high: float | None
    bytes: float
    """Mean stored bytes of an image."""
    planned: int
    """Images in the full plan."""
    to_train: int
    """Of them, those to train on; the others are probes, which are not filtered."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the full run is expected to give."""

    mode: str
    """The configured filter mode."""
    levels: tuple[Level, ...]
    sources: int
    """Real images in the preview."""
    images: int
    """In the full plan."""
    unet_steps: int
    """Of all images' first attempts."""
    generators: int
    speed: Speed | None

    @property
    def kept(self) -> float:
        """Images to train on that the configured filter is expected to keep."""
        return sum(level.to_train * level.accepted[self.mode] for level in self.levels)

    @property
    def gigabytes(self) -> float:
        """Images on disk, in 10^9 bytes."""
        return sum(level.planned * level.bytes for level in self.levels) / 1e9

    @property
    def seconds_per_image(self) -> float | None:
        """Of one generator at work on the full plan."""
        if self.speed is None:
            return None
        return self.unet_steps / self.images / self.speed.steps_per_s

    @property
    def hours(self) -> float | None:
        """Of all generators together, without loading."""
        if self.speed is None:
            return None
        return self.unet_steps / (self.speed.steps_per_s * self.generators) / 3600


def passed(spectrum: pa.Table, config: FilterConfig) -> dict[str, NDArray[np.bool_]]:
    """Which rows of an opened spectrum of one attempt pass, by filter mode, bool (rows,) each.

    The configured mode is always among them.
    """
    kept = np.asarray(spectrum["kept"].to_pylist(), bool)
    return {**verdicts(spectrum, config), config.mode: kept}


def at_levels(measured: Mapping[int, float], levels: Sequence[int]) -> list[float]:
    """Values at some λ in percent, interpolated linearly between the measured ones.

    Beyond the outermost measured λ its value holds.
    """
    known = sorted(measured)
    values = [measured[lam] for lam in known]
    return np.interp(levels, known, values).tolist()


def wilson(passes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share."""
    # slow to import, and every job imports this module for its configuration
    from scipy.stats import binomtest

    interval = binomtest(passes, n).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def forecast(
    spectrum: pa.Table,
    config: FilterConfig,
    full_plan: pa.Table,
    *,
    generators: int,
    speed: Speed | None,
) -> Forecast:
    """What the full PLAN would give, from a preview's opened spectrum with images."""
    measured = _Measured.of(spectrum, config)
    planned = counts(full_plan["lam_pct"])
    train = rows_where(full_plan, role="train")
    to_train = counts(train["lam_pct"])
    lams = sorted({*measured.shown, *planned})
    sizes = at_levels(measured.bytes, lams)
    shares = {mode: at_levels(share, lams) for mode, share in measured.shares.items()}
    levels: list[Level] = []
    for i, lam in enumerate(lams):
        low, high = measured.intervals.get(lam, (None, None))
        level = Level(
            lam_pct=lam,
            shown=measured.shown.get(lam, 0),
            accepted={mode: share[i] for mode, share in shares.items()},
            low=low,
            high=high,
            bytes=sizes[i],
            planned=planned.get(lam, 0),
            to_train=to_train.get(lam, 0),
        )
        levels.append(level)
    full = PlanSize.of(full_plan)
    return Forecast(
        mode=config.mode,
        levels=tuple(levels),
        sources=len(set(spectrum["sample_id"].to_pylist())),
        images=full.rows,
        unet_steps=full.unet_steps,
        generators=generators,
        speed=speed,
    )


@dataclass(frozen=True)
class _Measured:
    """What a preview shows of its images, by λ in percent."""

    shown: dict[int, int]
    """Images."""
    bytes: dict[int, float]
    """Mean stored bytes."""
    shares: dict[str, dict[int, float]]
    """Share that passes, by filter mode."""
    intervals: dict[int, tuple[float, float]]
    """The configured mode's 95 % interval."""

    @classmethod
    def of(cls, spectrum: pa.Table, config: FilterConfig) -> _Measured:
        """From an opened spectrum with images."""
        lam_pct = spectrum["lam_pct"].to_numpy()
        images = spectrum["image"].to_pylist()
        # a row whose image could not be made has none
        sizes = [len(image["bytes"] or b"") for image in images]
        stored = np.array(sizes)
        modes = passed(spectrum, config)
        shares: dict[str, dict[int, float]] = {mode: {} for mode in modes}
        measured = cls(shown={}, bytes={}, shares=shares, intervals={})
        for lam in np.unique(lam_pct).tolist():
            rows = lam_pct == lam
            measured.shown[lam] = int(rows.sum())
            measured.bytes[lam] = float(stored[rows].mean())
            for mode, mask in modes.items():
                measured.shares[mode][lam] = float(mask[rows].mean())
            passes = int(modes[config.mode][rows].sum())
            measured.intervals[lam] = wilson(passes, measured.shown[lam])
        return measured
