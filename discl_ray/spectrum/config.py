"""Where a spectrum lies, and which of its images may be trained on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from discl_ray.core.settings import Location, Settings, execution


class SpectrumConfig(Settings):
    """Which spectrum is trained on."""

    path: Location | None = execution(None, min_length=1)
    """Folder or URI of a spectrum; default: the run's own, found by its recorded configuration."""


class FilterConfig(Settings):
    """How stored scores become a verdict."""

    mode: Literal["absolute", "quantile", "rank"] = "rank"
    threshold: float = Field(default=0.30, ge=-1, le=1)
    """Least text_sim in mode `absolute` (cosine)."""
    quantile: float = Field(default=0.05, gt=0, lt=1)
    """Mode `quantile`: the share of the real images that would fall below the bar."""
    rank: int = Field(default=1, ge=1)
    """Worst rank of the own class in mode `rank`; 1 = the own class is the closest."""
