"""The curriculum and the composition of its epochs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from discl_ray.core import outside
from discl_ray.core.lam import lam_to_pct
from discl_ray.core.settings import OneOf, Settings, added, check_options, execution

BUILTIN = (
    "diverse_to_specific",
    "specific_to_diverse",
    "all_level",
    "text_only",
    "fixed",
    "easy_to_hard",
    "random",
    "adaptive",
    "duplicated",
    "real_only",
)
"""Strategies of the package."""

Strategy = Annotated[str, OneOf(BUILTIN, outside.STRATEGIES)]


class CurriculumConfig(Settings):
    """Which λ an epoch trains on, and how many images of each kind."""

    strategy: Strategy = "diverse_to_specific"
    """Which level when: a name, or a function of your own as `module:function`."""
    options: dict[str, Any] = added({}, before={})
    """Values for a strategy of your own, which finds them in `situation.config.options`."""
    epochs: int = Field(default=30, ge=0)
    """E_CL: epochs under the curriculum; the remaining epochs of training see real images only."""
    levels: tuple[float, ...] | None = None
    """λ that a curriculum goes through, of those the spectrum has; default: all of them. The real
    image (1) is always the last."""
    fixed_lam: float = Field(default=0.0, ge=0, lt=1)
    """fixed: its only λ."""
    scale: float = Field(default=3.0, gt=0)
    """k: synthetic images per epoch as a multiple of the hard real ones (paper, section 5.4)."""
    share: float | Literal["auto"] | None = "auto"
    """p: share of hard and synthetic images in an epoch; `auto` = hard classes / classes; null = no
    undersampling."""
    class_balanced: bool = False
    """Draws synthetic images evenly over the hard classes instead of in their real proportions."""
    min_keep: int = Field(default=1, ge=1)
    """A (class, λ) with fewer kept images borrows from the next higher λ, in the end from the real
    ones."""
    explore: float = Field(default=0.23, gt=0, lt=1)
    """adaptive: |D| as a share of all real training images; progress is measured before and after
    training on them (paper: 30,000 of 129,809). Rounded to whole batches."""
    allow_empty: bool = execution(False)
    """Trains even if the filter kept no image at all for a stage, on real images in their place."""
    explore_extra: bool = False
    """adaptive: the steps on D come on top of the epoch (the paper); by default they are part of
    it. While the curriculum lasts, epochs of the other strategies are longer by as many images:
    every strategy takes the same number of steps."""
    apply: Literal["same", "next"] = "same"
    """adaptive: whether the λ that progressed most is trained on in the same epoch (Algorithm 2) or
    in the next."""
    rule: Literal["margin", "strict"] = "margin"
    """adaptive: `strict` takes the λ that progressed most (Algorithm 2); `margin` keeps the
    previous one while the lead is less than one standard error, paired by source."""

    @field_validator("options")
    @classmethod
    def _for_ones_own(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return check_options(options, info.data.get("strategy"), BUILTIN)

    @field_validator("levels")
    @classmethod
    def _known_levels(cls, levels: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if levels is not None:
            pcts = [lam_to_pct(lam) for lam in levels]
            if not pcts or len(set(pcts)) < len(pcts):
                raise ValueError("is empty or names a λ twice")
        return levels

    @field_validator("share")
    @classmethod
    def _a_share(cls, share: float | str | None) -> float | str | None:
        if isinstance(share, float) and not 0 < share <= 1:
            raise ValueError('must be in (0, 1], "auto" or null (no undersampling)')
        return share
