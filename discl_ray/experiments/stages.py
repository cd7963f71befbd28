"""What the stages of a run ask for and what the filter left of it: said before training, and refused where nothing is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from discl_ray.config import Config, with_values
from discl_ray.core.lam import REAL
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

BAR = {"absolute": "threshold", "quantile": "quantile", "rank": "rank"}
"""filter.mode -> the key beside it that says how high the bar is."""

NAMED = 3
"""Rows a line names."""

Passed = Mapping[int, tuple[int, int]]
"""Level -> (images that pass the filter, images made)."""


def check_kept(planned: PlannedRun, spectrum: Spectrum) -> list[Supply]:
    """The stages that have fewer images than they ask for.

    Raises ConfigError if the filter kept nothing for one, unless `curriculum.allow_empty`, and if there is no probe to measure an
    adaptive curriculum's progress on.
    """
    _check_probes(planned, spectrum)
    short = [s for s in supplies(planned, spectrum) if s.short]
    empty = next((s for s in short if not s.kept), None)
    if empty is not None and not planned.job.curriculum.allow_empty:
        raise ConfigError(_nothing_kept(planned, spectrum, empty))
    return short


def _check_probes(planned: PlannedRun, spectrum: Spectrum) -> None:
    job, config = planned.job, planned.job.curriculum
    if not explores(config, job.levels, seed=job.seed) or _table(planned, spectrum).probes:
        return
    raise ConfigError(
        f"curriculum.strategy = {config.strategy}: there is no probe at any level to measure progress on (hard.probe_sources = "
        f"{planned.config.hard.probe_sources}, and val may have no image of a hard class); raise hard.probe_sources and "
        f"{advice('generate')}, bring val images, or take another curriculum.strategy"
    )


def check_stages(planned: Mapping[str, PlannedRun], spectrum: Spectrum) -> None:
    """Prints each stage that has fewer images than it asks for, once, with the rows it is a stage of; `planned` is by row.

    Raises ConfigError like `check_kept`, with the row.
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
        more = f" and {len(labels) - NAMED} more rows" if len(labels) > NAMED else ""
        print(f"  {', '.join(labels[:NAMED])}{more}: {line}", flush=True)


def check_points(seeds: Sequence[tuple[Config, Spectrum]], points: Sequence[Point]) -> None:
    """Raises ConfigError if no point can be trained for want of synthetic images, with what the first of them says.

    A trial of one that cannot, among others that can, fails by itself.
    """
    said: list[str] = []
    tried: set[tuple[Any, ...]] = set()
    for point in points:
        made = [(with_values(config, point), spectrum) for config, spectrum in seeds]
        key = tuple((config.curriculum, config.filter, config.train.epochs) for config, _ in made)
        if key in tried:
            continue
        tried.add(key)
        try:
            for config, spectrum in made:
                check_kept(plan_run(config, spectrum), spectrum)
        except ConfigError as error:
            said.append(f"{error}; drawn with {shown(point)}")
        else:
            return
    if said:
        every = (
            f"none of the {len(points)} points has a synthetic image for each stage; the first: "
            if len(said) > 1
            else ""
        )
        raise ConfigError(f"{every}{said[0]}")


def supplies(planned: PlannedRun, spectrum: Spectrum) -> list[Supply]:
    """What each synthetic stage of a run asks for and finds, a stage a set of levels."""
    job, config = planned.job, planned.job.curriculum
    choices = [
        c for c in stages(config, job.levels, seed=job.seed, epochs=planned.epochs) if c.synthetic
    ]
    if not choices:
        return []
    pools = _table(planned, spectrum).pools
    explored = (
        explored_images(pools, config, job.train.batch)
        if explores(config, job.levels, seed=job.seed)
        else 0
    )
    images = budget(pools, config, job.train.batch, 1) - explored
    return [supply(pools, choice, config, images) for choice in choices]


class _Table(NamedTuple):
    """What a table is going to hold, without making it."""

    pools: Pools
    probes: int


_TABLES: dict[tuple[str, FilterConfig], _Table] = {}
"""By a complete spectrum's folder, which does not change, and the filter: the rows of a comparison ask for the same."""


def _table(planned: PlannedRun, spectrum: Spectrum) -> _Table:
    key = (spectrum.store.base, planned.config.filter)
    if key not in _TABLES:
        rows = table_rows(spectrum, planned.config.filter).select(ROWS.names)
        role, hard = np.array(rows["role"].to_pylist()), np.array(rows["hard"].to_pylist(), bool)
        probes = (role == "probe") | ((role == "val") & hard)
        _TABLES[key] = _Table(_pools_of(rows, len(planned.job.counts)), int(probes.sum()))
    return _TABLES[key]


def _pools_of(rows: pa.Table, classes: int) -> Pools:
    return Pools.of(
        label=rows["label"].to_numpy().astype(np.int64),
        lam_pct=rows["lam_pct"].to_numpy().astype(np.int64),
        role=np.array(rows["role"].to_pylist()),
        hard=np.array(rows["hard"].to_pylist(), bool),
        num_classes=classes,
    )


def passed(spectrum: Spectrum, filter_config: FilterConfig, role: str) -> Passed:
    """How many images of a role pass the filter, by level."""
    rows = spectrum.table(filter_config, [])
    mine = np.array(rows["role"].to_pylist()) == role
    level, kept = (rows[name].to_numpy(zero_copy_only=False)[mine] for name in ("lam_pct", "kept"))
    made, passes = Counter(level.tolist()), Counter(level[kept].tolist())
    return {lam_pct: (passes[lam_pct], made[lam_pct]) for lam_pct in sorted(made)}


def probe_line(found: Passed) -> str:
    """The filter's pass rate on the probes, which are all used."""
    rates = ", ".join(
        f"λ {level / REAL:g}: {100 * kept / made:.0f} % of {made}"
        for level, (kept, made) in found.items()
    )
    return f"probes are not filtered, so that every level's come from the same images; the filter would pass {rates or 'none'}"


def _stage(short: Supply) -> str:
    return "stage λ " + ", ".join(f"{level / REAL:g}" for level in short.levels)


def _short(stage: Supply) -> str:
    """What a stage asks for, what there is, and what happens about the rest."""
    own = stage.asked - stage.borrowed - stage.real
    repeated = (
        f", each shown {own / stage.kept:.1f} times an epoch on average"
        if 0 < stage.kept < own
        else ""
    )
    there = f"{stage.kept} kept{repeated}"
    instead = f"{stage.borrowed} drawn from a higher level, {stage.real} from the real images"
    return f"{_stage(stage)} asks for {stage.asked} synthetic images an epoch: {there}; {instead}"


def _nothing_kept(planned: PlannedRun, spectrum: Spectrum, short: Supply) -> str:
    config = planned.config.filter
    bar = BAR.get(config.mode, "options")
    found = passed(spectrum, config, "train")
    kept = ", ".join(
        f"λ {level / REAL:g}: {passes} of {made}" for level, (passes, made) in found.items()
    )
    return (
        f"curriculum.strategy = {planned.job.curriculum.strategy}: {_stage(short)} has no synthetic image: the filter "
        f"(filter.mode = {config.mode}, filter.{bar} = {getattr(config, bar)}) kept {kept}. Another filter.{bar} or filter.mode "
        f"makes no image again; curriculum.levels leaves levels out; curriculum.allow_empty=true trains this stage all the same, "
        f"of its {short.asked} images an epoch {short.borrowed} from a higher level and {short.real} real ones"
    )
