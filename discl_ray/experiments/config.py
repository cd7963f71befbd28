"""What a sweep tries. None of it changes what a single run makes."""

from __future__ import annotations

from typing import Any, Literal

from discl_ray.core.settings import Settings, execution


class TuneConfig(Settings):
    """A sweep over schedules: the space, how it is searched, and what the search may use."""

    space: dict[str, Any] = execution({})
    """Dotted key of curriculum, train or filter -> one of {choice: [...]}, {grid: [...]},
    {uniform: [low, high]}, {loguniform: [low, high]}, {randint: [low, high]}; ranges include both
    ends."""
    trials: int = execution(16, ge=1)
    """Points of the space to try: each point of the grids at least once, a space of grids alone
    exactly once."""
    seeds: int = execution(1, ge=1)
    """Seeds a trial is the mean of: `seed` and those after it, each with its own spectrum."""
    search: Literal["random", "optuna"] = execution("random")
    """`random` draws all points beforehand, the same for any number of concurrent trials; `optuna`
    learns from earlier trials."""
    scheduler: Literal["asha", "none"] = execution("asha")
    """`asha` ends trials that are behind; `none` lets each train to its end."""
    grace: int = execution(10, ge=1)
    """asha: epochs that every trial gets."""
    concurrent: int = execution(2, ge=1)
    """Trials at a time, each on one CPU, or on `train.workers` of them."""
    time_limit_s: float | None = execution(None, gt=0)
    """Seconds after which the sweep ends with what it has, counted over all resumptions; null: no
    limit. With a higher limit it goes on."""
    seed: int = execution(0, ge=0)
    """Redraws the points."""
