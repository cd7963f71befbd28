"""What the stages of a run need and what the filter kept for them, checked before training."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

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


def check_kept(planned: PlannedRun, spectrum: Spectrum) -> list[Supply]:
    """The stages that have fewer images than they ask for.

    Raises ConfigError if the filter kept nothing for one, unless `curriculum.allow_empty`, and if
    an adaptive curriculum has no probe to measure its progress on.
    """
    _check_probes(planned, spectrum)
    short = [stage for stage in supplies(planned, spectrum) if stage.short]
    empty = [stage for stage in short if not stage.kept]
    if empty and not planned.job.curriculum.allow_empty:
        raise ConfigError(_nothing_kept(planned, spectrum, empty[0]))
    return short


def _check_probes(planned: PlannedRun, spectrum: Spectrum) -> None:
    job = planned.job
    config = job.curriculum
    if not explores(config, job.levels, seed=job.seed):
        return
    if _planned(planned, spectrum).probes:
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
            rows.setdefault(_short(stage), []).append(label)
    for line, labels in rows.items():
        named = ", ".join(labels[:NAMED])
        others = len(labels) - NAMED
        if others > 0:
            named += f" and {others} more row" + ("s" if others > 1 else "")
        log.info("%s: %s", named, line)


def check_points(seeds: Sequence[tuple[Config, Spectrum]], points: Sequence[Point]) -> None:
    """Raises ConfigError, with the first point's reason, if no point has the images it needs.

    Where some points have them, the trials of the others fail by themselves.
    """
    reasons: list[str] = []
    tried: list[list[tuple[CurriculumConfig, FilterConfig, int]]] = []
    for point in points:
        configs = [with_values(config, point) for config, _ in seeds]
        decisive = [_decisive(config) for config in configs]
        if decisive in tried:  # points often differ in other values, and a check reads the spectrum
            continue
        tried.append(decisive)
        try:
            for config, (_, spectrum) in zip(configs, seeds, strict=True):
                check_kept(plan_run(config, spectrum), spectrum)
        except ConfigError as error:
            reasons.append(f"{error}; drawn with {shown(point)}")
        else:
            return
    if not reasons:
        return
    every = ""
    if len(reasons) > 1:
        every = (
            f"none of the {len(points)} points has a synthetic image for each stage; the first: "
        )
    raise ConfigError(every + reasons[0])


def _decisive(config: Config) -> tuple[CurriculumConfig, FilterConfig, int]:
    """What of a configuration decides whether its stages have images."""
    return config.curriculum, config.filter, config.train.epochs


def supplies(planned: PlannedRun, spectrum: Spectrum) -> list[Supply]:
    """What each synthetic stage of a run asks for and finds; a stage is a set of levels."""
    job = planned.job
    config, batch = job.curriculum, job.train.batch
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
    config = planned.config.filter
    key = (spectrum.store.base, config.model_dump_json())
    if key not in _PLANNED:
        rows = table_rows(spectrum, config).select(ROWS.names)
        role = np.array(rows["role"].to_pylist())
        hard = np.array(rows["hard"].to_pylist(), bool)
        probes = (role == "probe") | ((role == "val") & hard)
        pools = _pools_of(rows, len(planned.job.counts))
        _PLANNED[key] = _Planned(pools, int(probes.sum()))
    return _PLANNED[key]


def _pools_of(rows: pa.Table, classes: int) -> Pools:
    return Pools.of(
        label=rows["label"].to_numpy().astype(np.int64),
        lam_pct=rows["lam_pct"].to_numpy().astype(np.int64),
        role=np.array(rows["role"].to_pylist()),
        hard=np.array(rows["hard"].to_pylist(), bool),
        num_classes=classes,
    )


def passed(spectrum: Spectrum, filter_config: FilterConfig, role: str) -> Passed:
    """How many images of a role pass the filter, by λ in percent."""
    rows = columns.rows_where(spectrum.table(filter_config, []), role=role)
    kept = rows.filter(rows["kept"])
    made = Counter(rows["lam_pct"].to_pylist())
    passes = Counter(kept["lam_pct"].to_pylist())
    return {lam_pct: (passes[lam_pct], made[lam_pct]) for lam_pct in sorted(made)}


def probe_line(found: Passed) -> str:
    """The filter's pass rate on the probes, which are used whether they pass or not."""
    rates: list[str] = []
    for lam_pct, (kept, made) in found.items():
        percent = 100 * kept / made
        rates.append(f"λ {pct_to_lam(lam_pct):g}: {percent:.0f} % of {made}")
    return (
        "probes are not filtered, so that every level's come from the same images; the filter "
        f"would pass {', '.join(rates) or 'none'}"
    )


def _stage(short: Supply) -> str:
    levels = [f"{pct_to_lam(lam_pct):g}" for lam_pct in short.levels]
    return f"stage λ {', '.join(levels)}"


def _short(stage: Supply) -> str:
    """What a stage asks for, what was kept for it, and what is drawn in place of the rest."""
    own = stage.asked - stage.borrowed - stage.real
    kept = f"{stage.kept} kept"
    if 0 < stage.kept < own:
        kept += f", each shown {own / stage.kept:.1f} times an epoch on average"
    instead = f"{stage.borrowed} drawn from a higher level, {stage.real} from the real images"
    return f"{_stage(stage)} asks for {stage.asked} synthetic images an epoch: {kept}; {instead}"


def _nothing_kept(planned: PlannedRun, spectrum: Spectrum, short: Supply) -> str:
    config = planned.config.filter
    bar = BAR.get(config.mode, "options")
    kept: list[str] = []
    for lam_pct, (passes, made) in passed(spectrum, config, "train").items():
        kept.append(f"λ {pct_to_lam(lam_pct):g}: {passes} of {made}")
    strategy = planned.job.curriculum.strategy
    stage = _stage(short)
    return (
        f"curriculum.strategy = {strategy}: {stage} has no synthetic image: the filter "
        f"(filter.mode = {config.mode}, filter.{bar} = {getattr(config, bar)}) kept "
        f"{', '.join(kept)}. Another filter.{bar} or filter.mode makes no image again; "
        "curriculum.levels leaves levels out; curriculum.allow_empty=true trains this stage all "
        f"the same, of its {short.asked} images an epoch {short.borrowed} from a higher level and "
        f"{short.real} real ones"
    )
