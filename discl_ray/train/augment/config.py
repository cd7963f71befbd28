"""Augmentation of training images. Pure, so that the configuration can hold it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from discl_ray.core.settings import Settings

STEPS = 10
"""Most operations that one image may go through."""


class AugmentConfig(Settings):
    """Augmentation of training images; val and test are never augmented."""

    kind: Literal["standard", "strong", "cuda"] = "standard"
    """`standard`: crop, flip, shift and jitter as below. `strong`: colour and texture operations as
    well. `cuda`: operations whose number and magnitude grow by class with what the model predicts
    correctly (Ahn et al., ICLR 2023)."""
    shift: int = Field(default=2, ge=0)
    """Largest random shift, in pixels; edges are repeated."""
    jitter: float = Field(default=0.1, ge=0)
    """Spread of random gain and offset, in standard deviations of the image."""
    flip: bool = False
    """Mirrors half the images left to right; not for letters or digits."""
    crop: float = Field(default=1.0, gt=0, le=1)
    """Smallest share of the area that a random crop keeps, at aspects of 3/4 to 4/3; 1 crops
    nothing. The only augmentation of a CLIP's images; its default there is 0.9."""
    mix: Literal["none", "mixup", "cutmix"] = "none"
    """Mixes each image and its loss with another's of the batch."""
    mix_alpha: float = Field(default=1.0, gt=0)
    """Both parameters of the Beta distribution of the mixing share."""
    strong_ops: int = Field(default=2, ge=0, le=STEPS)
    """Operations for each image when `kind` is `strong`."""
    cuda_gamma: float = Field(default=0.6, ge=0, le=1)
    """Share of a level's probes that must be right for a class to go up."""
    cuda_probes: int = Field(default=10, ge=1)
    """T: level l of a class is probed with T * (l + 1) images."""
    cuda_max: int = Field(default=10, ge=1, le=STEPS)
    """Highest level; its operations have full magnitude."""
