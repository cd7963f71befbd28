"""What the engine takes and gives, and what it needs of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image to make."""

    gid: str
    source_id: str
    """What `source` is cached under."""
    source: Pixels
    """The real image at the model's size, RGB (H, W, 3)."""
    prompt: str
    negative_prompt: str
    seed: int
    num_steps: int
    """Steps to take: the last `num_steps` of the sampler's T; at least 1."""
    pure: bool = False
    """Start from pure noise; only for a row that takes all steps."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """One image made, or the reason why there is none."""

    gid: str
    pixels: Pixels | None
    """RGB (H, W, 3)."""
    error: str | None = None
    """core.schema.BROKEN, if that is how it came out."""
    micro_batch: int
    """The batch it was made in; equal batches give equal bytes."""


Conditioning = tuple[Tensor, ...]
"""The UNet's inputs besides latent and timestep; in each tensor the negative prompt is first."""


class Model(Protocol):
    """What the engine needs of a model; generate/diffusion.py adapts those of diffusers."""

    device: torch.device
    size: tuple[int, int]
    """(height, width) in pixels."""
    scaling: float
    """Factor of the VAE's latents in the diffusion process."""
    latent_shape: tuple[int, int, int]

    def encode_source(self, pixels: Pixels) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE posterior of RGB uint8 (*size, 3)."""
        ...

    def encode_prompts(self, negative: str, prompt: str) -> Conditioning:
        """The UNet's conditioning; each tensor has the negative prompt's row, then the prompt's."""
        ...

    def denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output, float32, for rows at timesteps of their own."""
        ...

    def decode(self, latents: Tensor, *, safe: bool = False) -> tuple[Tensor, Tensor]:
        """RGB uint8 (N, *size, 3), and which images are black or not finite, bool (N,)."""
        ...


@dataclass(eq=False)
class Call:
    """One call of the engine: its waiting rows, fewest steps first, and its results."""

    waiting: list[Row]
    results: SimpleQueue[Made | BaseException] = field(default_factory=SimpleQueue)
    cancelled: bool = False
    """The caller takes no more results."""


@dataclass
class Slot:
    """A row in the batch."""

    row: Row
    call: Call
    steps_left: int
    generator: torch.Generator
    """All noise of the row comes from it, so that no other row changes the row's bytes."""
