"""Which data set, and which of its classes count as many, medium and few."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from discl_ray.core.settings import Settings


class DataConfig(Settings):
    """The real images."""

    name: Literal["digits_lt"] = "digits_lt"
    """The data set's reader."""
    look: Literal["ochre", "web"] = "ochre"
    """digits_lt: how the task's digits look; `web` closes the gap to what the generator has seen."""
    head: int = Field(default=36, ge=2, le=36)
    """digits_lt: training images of the largest class (three blocks of writers hold at least 36 of each)."""
    tail: int = Field(default=2, ge=1)
    """digits_lt: training images of the smallest class."""
    few_below: int = Field(default=6, ge=1)
    """Classes with fewer training images than this are `few`."""
    many_above: int = Field(default=15, ge=1)
    """Classes with more training images than this are `many`; the rest are `medium`."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.tail > self.head:
            raise ValueError(f"tail = {self.tail} exceeds head = {self.head}")
        if self.few_below > self.many_above + 1:
            raise ValueError(f"few_below = {self.few_below} overlaps many_above = {self.many_above}")
        return self
