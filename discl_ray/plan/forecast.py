# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""A look before a long job: few sources at more levels, and what they say about the whole plan.

Everything here is pure. `synthesize.run.preview_of` puts the small run together, `jobs/preview.py`
makes and shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from discl_ray.cluster.heartbeat import GeneratorSigns
from discl_ray.core.lam import check_grid, lam_to_pct, num_denoising_steps
from discl_ray.errors import ConfigError
from discl_ray.plan.config import PlanConfig, PreviewConfig
from discl_ray.plan.grid import PlanSize
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.filter import verdicts


def preview_plan(plan: PlanConfig, preview: PreviewConfig) -> PlanConfig:
    """The grid of a preview: its own levels and replicas, one attempt, and nothing of the full plan
    that would not show in it.

    Raises ConfigError if no level has a step, or two have equally many.
    """
    lams = tuple(
        lam for lam in preview.lams if num_denoising_steps(lam_to_pct(lam), plan.num_steps)
    )
    if not lams:
        shown = ", ".join(f"{lam:g}" for lam in preview.lams)
        raise ConfigError(
            f"preview.lams = [{shown}]: no level leaves a step of plan.num_steps = "
            f"{plan.num_steps}; add λ = 0"
        )
    if problems := check_grid(lams, plan.num_steps):
        raise ConfigError(
            f"preview.lams: {'; '.join(problems)} (plan.num_steps = {plan.num_steps})"
        )
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

    A class gives its second image only after every class has given its first; where a turn is cut
    short, its classes are taken at even distances. Within a class the order is that of the images'
    hashes, so that no order of the reader shows.
    """
    rows = hard.select(["label", "split", "sha256"]).to_pylist()
    classes: dict[int, list[int]] = {}
    for i in sorted(range(len(rows)), key=lambda i: (rows[i]["label"], rows[i]["sha256"])):
        if rows[i]["split"] == "train":
            classes.setdefault(rows[i]["label"], []).append(i)
    chosen: list[int] = []
    for turn in zip_longest(*classes.values()):
        there = [i for i in turn if i is not None]
        take = min(count - len(chosen), len(there))
        chosen += [there[k * len(there) // take] for k in range(take)]
    return hard.take(pa.array(sorted(chosen), pa.int64()))


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What the generators of a preview showed while they worked."""

    steps_per_s: float
    """UNet steps per second of one generator with a full batch, loading and the first step left
    out."""
    peak_bytes: int
    """Most memory a generator process took: on a GPU what torch allocated there, else its resident
    size."""
    micro_batch: int
    """Rows of its batch, at the smallest."""
    generators: int
    """How many had work to do."""

    @classmethod
    def of(cls, signs: Iterable[GeneratorSigns]) -> Speed | None:
        """From the generators' vital signs; None if they were done before there was anything to
        measure."""
        working = [s for s in signs if s.seconds and s.steps]
        if not working:
            return None
        return cls(
            steps_per_s=sum(s.steps for s in working) / sum(s.seconds for s in working),
            peak_bytes=max(s.peak_bytes for s in working),
            micro_batch=min(s.micro_batch for s in working),
            generators=len(working),
        )


@dataclass(frozen=True, kw_only=True)
class Level:
    """One λ of the preview, of the full plan, or of both; what was not measured here is
    interpolated over λ."""

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
    """What a full run would give."""

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
        return self.unet_steps / self.images / self.speed.steps_per_s if self.speed else None

    @property
    def hours(self) -> float | None:
        """Of all generators together, without loading."""
        return (
            self.unet_steps / (self.speed.steps_per_s * self.generators) / 3600
            if self.speed
            else None
        )


def passed(spectrum: pa.Table, config: FilterConfig) -> dict[str, NDArray[np.bool_]]:
    """Pass or fail of every row by mode, shape (rows,), of an opened spectrum of one attempt;
    always has the configured mode."""
    return {
        **verdicts(spectrum, config),
        config.mode: np.asarray(spectrum["kept"].to_pylist(), bool),
    }


def at_levels(measured: Mapping[int, float], levels: Sequence[int]) -> list[float]:
    """Values by `lam_pct`, interpolated linearly; beyond the outermost measured level its value
    holds."""
    known = sorted(measured)
    return np.interp(levels, known, [measured[lam_pct] for lam_pct in known]).tolist()


def wilson(passes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share."""
    from scipy.stats import (
        binomtest,
    )  # slow to import, and every job imports this module for its configuration

    interval = binomtest(passes, n).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def _by_level(plan: pa.Table) -> dict[int, int]:
    return {c["values"]: c["counts"] for c in pc.value_counts(plan["lam_pct"]).to_pylist()}


def forecast(
    spectrum: pa.Table,
    config: FilterConfig,
    full_plan: pa.Table,
    *,
    generators: int,
    speed: Speed | None,
) -> Forecast:
    """From a preview's opened spectrum (with images) and the full PLAN to what the full run would
    give."""
    lam_pct = spectrum["lam_pct"].to_numpy()
    size = np.array([len(image["bytes"] or b"") for image in spectrum["image"].to_pylist()])
    rows = {int(lam): lam_pct == lam for lam in np.unique(lam_pct)}
    modes = passed(spectrum, config)
    planned = _by_level(full_plan)
    to_train = _by_level(full_plan.filter(pc.equal(full_plan["role"], "train")))
    every = sorted({*rows, *planned})
    shares = {
        mode: at_levels({lam: float(mask[here].mean()) for lam, here in rows.items()}, every)
        for mode, mask in modes.items()
    }
    stored = at_levels({lam: float(size[here].mean()) for lam, here in rows.items()}, every)
    levels = []
    for i, lam in enumerate(every):
        here = rows.get(lam)
        low, high = (
            (None, None)
            if here is None
            else wilson(int(modes[config.mode][here].sum()), int(here.sum()))
        )
        levels.append(
            Level(
                lam_pct=lam,
                shown=0 if here is None else int(here.sum()),
                accepted={mode: share[i] for mode, share in shares.items()},
                low=low,
                high=high,
                bytes=stored[i],
                planned=planned.get(lam, 0),
                to_train=to_train.get(lam, 0),
            )
        )
    size_ = PlanSize.of(full_plan)
    return Forecast(
        mode=config.mode,
        levels=tuple(levels),
        sources=len(set(spectrum["sample_id"].to_pylist())),
        images=size_.rows,
        unet_steps=size_.unet_steps,
        generators=generators,
        speed=speed,
    )
