"""The curriculum and how its stages are mixed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from discl_ray.core.settings import Settings

Strategy = Literal["diverse_to_specific", "all_level", "real_only"]


class CurriculumConfig(Settings):
    """Which level when, and how many of what (SCIENCE: strategies, mixing)."""

    strategy: Strategy = "diverse_to_specific"
    epochs: int = Field(default=30, ge=0)
    """E_CL: epochs under the curriculum; the remaining epochs of training see real images only."""
    scale: float = Field(default=3.0, gt=0)
    """k: synthetic images per epoch as a multiple of the hard real ones (paper §5.4)."""
    share: float | Literal["auto"] | None = "auto"
    """p: share of hard and synthetic images in an epoch; `auto` = hard classes / classes; null = no undersampling."""
    class_balanced: bool = False
    """Draw synthetic images evenly over the hard classes instead of in their real proportions."""
    min_keep: int = Field(default=1, ge=1)
    """A (class, level) with fewer kept images borrows from the next higher level, in the end from the real ones."""
