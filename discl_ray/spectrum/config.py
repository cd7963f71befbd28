"""Where a spectrum lies, and which of its images may be trained on."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from discl_ray.core import outside
from discl_ray.core.settings import Location, OneOf, Settings, added, check_options, execution

BUILTIN = ("absolute", "quantile", "rank")
"""Modes of the package."""


class SpectrumConfig(Settings):
    """Which spectrum is trained on."""

    path: Location | None = execution(None, min_length=1)
    """Folder or URI of a spectrum; default: the run's own, found by its recorded configuration."""


class FilterConfig(Settings):
    """How stored scores become a verdict."""

    mode: Annotated[str, OneOf(BUILTIN, outside.FILTERS)] = "rank"
    """What an image must reach: a name, or a function of your own as `module:function`."""
    options: dict[str, Any] = added({}, before={})
    """Values for a filter of your own."""
    threshold: float = Field(default=0.30, ge=-1, le=1)
    """Least text_sim in mode `absolute` (cosine)."""
    quantile: float = Field(default=0.05, gt=0, lt=1)
    """Mode `quantile`: the share of the real images that would fall below the bar."""
    rank: int = Field(default=1, ge=1)
    """Worst rank of the own class in mode `rank`; 1 = the own class is the closest."""

    @field_validator("options")
    @classmethod
    def _for_ones_own(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return check_options(options, info.data.get("mode"), BUILTIN)
