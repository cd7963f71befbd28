"""What the stages of a run need and what the filter kept for them, checked before training."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.config import Config, with_values
from discl_ray.core import columns
from discl_ray.core.lam import pct_to_lam
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.epoch_order import Pools, Supply, budget, explored_images, supply
from discl_ray.curriculum.strategies import explores, stages
from discl_ray.errors import ConfigError
from discl_ray.experiments.rows import PlannedRun, plan_run
from discl_ray.experiments.tune.space import Point, shown
from discl_ray.process.calls import advice
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.images.segments import ROWS
from discl_ray.train.images.table import table_rows

log = logging.getLogger(__name__)

BAR = {"absolute": "threshold", "quantile": "quantile", "rank": "rank"}
"""filter.mode -> the key that holds its threshold; filters from outside have `options`."""

NAMED = 3
"""Rows a line names."""

Passed = Mapping[int, tuple[int, int]]
"""λ in percent -> (images that pass the filter, images made)."""

Seeds = Sequence[tuple[Config, Spectrum]]
"""The configuration and the spectrum of each seed."""

Decisive = tuple[CurriculumConfig, FilterConfig, int]
"""What of a configuration decides whether its stages have images."""


def check_kept(planned: PlannedRun, spectrum: Spectrum) -> list[Supply]:
    """The stages that have fewer images than they ask for.

    Raises ConfigError if the filter kept nothing for one, unless `curriculum.allow_empty`, and if
    an adaptive curriculum has no probe to measure its progress on.
    """
    _check_probes(planned, spectrum)
    every = supplies(planned, spectrum)
    short = [stage for stage in every if stage.short]
    empty = [stage for stage in short if not stage.kept]
    if empty and not planned.job.curriculum.allow_empty:
        message = _nothing_kept(planned, spectrum, empty[0])
        raise ConfigError(message)
    return short


def _check_probes(planned: PlannedRun, spectrum: Spectrum) -> None:
    """Raises ConfigError for an adaptive curriculum without a probe."""
    job = planned.job
    config = job.curriculum
    if not explores(config, job.levels, seed=job.seed):
        return
    holds = _planned(planned, spectrum)
    if holds.probes:
        return
    sources = planned.config.hard.probe_sources
    raise ConfigError(
        f"curriculum.strategy = {config.strategy}: there is no probe at any level to measure "
        f"progress on (hard.probe_sources = {sources}, and val may have no image of a hard class); "
        f"raise hard.probe_sources and {advice('generate')}, bring val images, or take another "
        "curriculum.strategy"
    )


def check_stages(planned: Mapping[str, PlannedRun], spectrum: Spectrum) -> None:
    """Logs each stage that has fewer images than it asks for, with the rows that have it.

    `planned` is by row. Raises ConfigError like `check_kept`, with the row.
    """
    rows: dict[str, list[str]] = {}
    for label, run in planned.items():
        try:
            short = check_kept(run, spectrum)
        except ConfigError as error:
            raise ConfigError(f"{label}: {error}") from error
        for stage in short:
            line = _short(stage)
            rows.setdefault(line, []).append(label)
    for line, labels in rows.items():
        named = _named(labels)
        log.info("%s: %s", named, line)


def _named(labels: Sequence[str]) -> str:
    """The first NAMED labels, and how many more there are."""
    named = ", ".join(labels[:NAMED])
    others = len(labels) - NAMED
    if others <= 0:
        return named
    noun = "row" if others == 1 else "rows"
    return f"{named} and {others} more {noun}"


def check_points(seeds: Seeds, points: Sequence[Point]) -> None:
    """Raises ConfigError, with the first point's reason, if no point has the images it needs.

    Where some points have them, the trials of the others fail by themselves.
    """
    reasons: list[str] = []
    tried: list[list[Decisive]] = []
    for point in points:
        configs = [with_values(config, point) for config, _ in seeds]
        decisive = [_decisive(config) for config in configs]
        if decisive in tried:  # points often differ in other values, and a check reads the spectrum
            continue
        tried.append(decisive)
        try:
            for config, (_, spectrum) in zip(configs, seeds, strict=True):
                planned = plan_run(config, spectrum)
                check_kept(planned, spectrum)
        except ConfigError as error:
            drawn = shown(point)
            reasons.append(f"{error}; drawn with {drawn}")
        else:
            return
    if not reasons:
        return
    message = reasons[0]
    if len(reasons) > 1:
        number = len(points)
        message = (
            f"none of the {number} points has a synthetic image for each stage; the first: "
            f"{message}"
        )
    raise ConfigError(message)


def _decisive(config: Config) -> Decisive:
    return config.curriculum, config.filter, config.train.epochs


def supplies(planned: PlannedRun, spectrum: Spectrum) -> list[Supply]:
    """What each synthetic stage of a run asks for and finds; a stage is a set of levels."""
    job = planned.job
    config = job.curriculum
    batch = job.train.batch
    every = stages(config, job.levels, seed=job.seed, epochs=planned.epochs)
    choices = [choice for choice in every if choice.synthetic]
    if not choices:
        return []
    pools = _planned(planned, spectrum).pools
    images = budget(pools, config, batch, 1)
    if explores(config, job.levels, seed=job.seed):
        images -= explored_images(pools, config, batch)
    return [supply(pools, choice, config, images) for choice in choices]


class _Planned(NamedTuple):
    """What a table of images will hold, known without making it."""

    pools: Pools
    probes: int


_PLANNED: dict[tuple[str, str], _Planned] = {}
"""A cache by spectrum's folder, whose content is final, and filter, which rows share."""


def _planned(planned: PlannedRun, spectrum: Spectrum) -> _Planned:
    """What the table of a run will hold, from the cache if it is there."""
    config = planned.config.filter
    key = (spectrum.store.base, config.model_dump_json())
    if key not in _PLANNED:
        rows = table_rows(spectrum, config)
        classes = len(planned.job.counts)
        _PLANNED[key] = _planned_of(rows.select(ROWS.names), classes)
    return _PLANNED[key]


def _planned_of(rows: pa.Table, classes: int) -> _Planned:
    """What a table of these ROWS will hold."""
    role = np.array(rows["role"].to_pylist())
    hard = np.array(rows["hard"].to_pylist(), bool)
    is_probe = role == "probe"
    is_hard_val = (role == "val") & hard
    probes = np.count_nonzero(is_probe | is_hard_val)
    pools = Pools.of(
        label=_integers(rows, "label"),
        lam_pct=_integers(rows, "lam_pct"),
        role=role,
        hard=hard,
        num_classes=classes,
    )
    return _Planned(pools, int(probes))


def _integers(rows: pa.Table, column: str) -> NDArray[np.int64]:
    """A column of integers, shape (N,)."""
    values = rows[column].to_numpy()
    return values.astype(np.int64)


def passed(spectrum: Spectrum, filter_config: FilterConfig, role: str) -> Passed:
    """How many images of a role pass the filter, by λ in percent."""
    table = spectrum.table(filter_config, [])
    rows = columns.rows_where(table, role=role)
    kept = rows.filter(rows["kept"])
    made = Counter(rows["lam_pct"].to_pylist())
    passes = Counter(kept["lam_pct"].to_pylist())
    return {lam_pct: (passes[lam_pct], made[lam_pct]) for lam_pct in sorted(made)}


def probe_line(found: Passed) -> str:
    """The filter's pass rate on the probes, which are used whether they pass or not."""
    rates: list[str] = []
    for lam_pct, (kept, made) in found.items():
        lam = pct_to_lam(lam_pct)
        percent = 100 * kept / made
        rates.append(f"λ {lam:g}: {percent:.0f} % of {made}")
    passing = ", ".join(rates) or "none"
    return (
        "probes are not filtered, so that every level's come from the same images; the filter "
        f"would pass {passing}"
    )


def _stage(short: Supply) -> str:
    """A stage by its levels."""
    lams = map(pct_to_lam, short.levels)
    levels = ", ".join(f"{lam:g}" for lam in lams)
    return f"stage λ {levels}"


def _short(stage: Supply) -> str:
    """What a stage asks for, what was kept for it, and what is drawn in place of the rest."""
    instead = stage.borrowed + stage.real
    own = stage.asked - instead
    kept = f"{stage.kept} kept"
    if 0 < stage.kept < own:
        times = own / stage.kept
        kept += f", each shown {times:.1f} times an epoch on average"
    name = _stage(stage)
    return (
        f"{name} asks for {stage.asked} synthetic images an epoch: {kept}; "
        f"{stage.borrowed} drawn from a higher level, {stage.real} from the real images"
    )


def _nothing_kept(planned: PlannedRun, spectrum: Spectrum, short: Supply) -> str:
    """That a stage has no image, how many the filter kept at each level, and what to change."""
    config = planned.config.filter
    bar = BAR.get(config.mode, "options")
    threshold = getattr(config, bar)
    found = passed(spectrum, config, "train")
    kept: list[str] = []
    for lam_pct, (passes, made) in found.items():
        lam = pct_to_lam(lam_pct)
        kept.append(f"λ {lam:g}: {passes} of {made}")
    by_level = ", ".join(kept)
    strategy = planned.job.curriculum.strategy
    stage = _stage(short)
    return (
        f"curriculum.strategy = {strategy}: {stage} has no synthetic image: the filter "
        f"(filter.mode = {config.mode}, filter.{bar} = {threshold}) kept "
        f"{by_level}. Another filter.{bar} or filter.mode makes no image again; "
        "curriculum.levels leaves levels out; curriculum.allow_empty=true trains this stage all "
        f"the same, of its {short.asked} images an epoch {short.borrowed} from a higher level and "
        f"{short.real} real ones"
    )
