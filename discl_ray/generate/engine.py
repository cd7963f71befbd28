"""The engine: img2img for rows at different λ in one batch that never changes its shape.

Images at different λ need different numbers of steps. A batch of `micro_batch` rows is kept full: every row has its own place
in the schedule, a finished row leaves for the VAE and a waiting one takes its slot, longest first. Because the shape never
changes, a row's bytes do not depend on who sits beside it.

It agrees with diffusers' img2img pipeline on the same noise (tests prove it): per row one generator, from which first the
posterior sample and then the noise are drawn; z_t = sqrt(a_t) z + sqrt(1-a_t) e (paper §3.1), then DDIM with guidance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from discl_ray.generate.samplers import Table


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image to make."""

    gid: str
    source_id: str
    """What `source` is cached under."""
    source: NDArray[np.uint8]
    """The real image, RGB (H, W, 3)."""
    prompt: str
    negative_prompt: str
    seed: int
    num_steps: int
    """Steps to take: the last `num_steps` of the sampler's T."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """One image made."""

    gid: str
    pixels: NDArray[np.uint8]
    """RGB (side, side, 3)."""


class Model(Protocol):
    """What the engine asks of a diffusion model; `StableDiffusion` is one."""

    device: torch.device
    scaling: float
    latent_shape: tuple[int, int, int]

    def encode_source(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]: ...  # noqa: D102
    def encode_text(self, prompt: str) -> Tensor: ...  # noqa: D102
    def denoise(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor: ...  # noqa: D102
    def decode(self, latents: Tensor) -> np.ndarray: ...  # noqa: D102


class Engine:
    """Makes images for an iterable of rows; holds the model, the sampler's table and the batch's size."""

    def __init__(self, model: Model, table: Table, *, cfg_scale: float, micro_batch: int, decode_batch: int) -> None:
        self.model, self.table = model, table
        self.cfg_scale, self.micro_batch, self.decode_batch = cfg_scale, micro_batch, decode_batch
        to_device = lambda a: torch.from_numpy(a.copy()).to(model.device)  # noqa: E731
        self._timesteps = to_device(table.timesteps)
        self._keep, self._push = (to_device(a).view(-1, 1, 1, 1) for a in (table.keep, table.push))
        self._texts: dict[str, Tensor] = {}
        self.useful_rows = 0
        """Rows of UNet work that belonged to an image, so far."""
        self.total_rows = 0
        """Rows of UNet work in all; the difference is padding."""

    def run(self, rows: Iterable[Row]) -> Iterator[Made]:
        """Yields every row's image, in the order they are finished.

        Raises ValueError for a row with more steps than the schedule has, or none.
        """
        waiting = sorted(rows, key=lambda r: r.num_steps)  # the last, with most steps, is admitted first
        for row in waiting:
            if not 1 <= row.num_steps <= self.table.num_steps:
                raise ValueError(f"row {row.gid}: {row.num_steps} steps; allowed: 1 to {self.table.num_steps}")
        sources: dict[str, tuple[Tensor, Tensor]] = {}
        batch, device = self.micro_batch, self.model.device
        slots: list[Row | None] = [None] * batch
        latents = torch.zeros(batch, *self.model.latent_shape, device=device)
        step = torch.full((batch,), self.table.num_steps - 1, device=device)
        text: Tensor | None = None
        done: list[tuple[Row, Tensor]] = []
        while True:
            for i in range(batch):
                if slots[i] is None and waiting:
                    row = waiting.pop()
                    slots[i] = row
                    latents[i], step[i] = self._start(row, sources)
                    guided = torch.stack([self._text(row.negative_prompt), self._text(row.prompt)])
                    if text is None:
                        text = torch.zeros(2, batch, *guided.shape[1:], device=device)
                    text[:, i] = guided
            active = [i for i in range(batch) if slots[i] is not None]
            if not active or text is None:
                break
            latents = self._step(latents, step, text)
            self.useful_rows += len(active)
            self.total_rows += batch
            step += 1
            for i in active:
                row = slots[i]
                if row is not None and int(step[i]) == self.table.num_steps:
                    done.append((row, latents[i].clone()))
                    slots[i] = None
            step.clamp_(max=self.table.num_steps - 1)  # empty slots idle at the last step
            while len(done) >= self.decode_batch:
                yield from self._decode(done[: self.decode_batch])
                del done[: self.decode_batch]
        if done:
            yield from self._decode(done)

    def _start(self, row: Row, sources: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, int]:
        """The noised latent a row starts from and its first step."""
        if row.source_id not in sources:
            sources[row.source_id] = self.model.encode_source(row.source)
        mean, std = sources[row.source_id]
        generator = torch.Generator().manual_seed(row.seed)
        shape = (1, *self.model.latent_shape)
        posterior, noise = (torch.randn(shape, generator=generator)[0].to(self.model.device) for _ in range(2))
        first = self.table.num_steps - row.num_steps
        signal, spread = float(self.table.signal[first]), float(self.table.noise[first])
        return signal * self.model.scaling * (mean + std * posterior) + spread * noise, first

    def _text(self, prompt: str) -> Tensor:
        if prompt not in self._texts:
            self._texts[prompt] = self.model.encode_text(prompt)
        return self._texts[prompt]

    @torch.no_grad()
    def _step(self, latents: Tensor, step: Tensor, text: Tensor) -> Tensor:
        """One guided step for every slot: e = e_u + s (e_c - e_u), then x <- A x + B e."""
        timesteps = self._timesteps[step]
        out = self.model.denoise(torch.cat([latents, latents]), timesteps.repeat(2), text.flatten(0, 1))
        unconditional, conditional = out.chunk(2)
        guided = unconditional + self.cfg_scale * (conditional - unconditional)
        return self._keep[step] * latents + self._push[step] * guided

    def _decode(self, done: list[tuple[Row, Tensor]]) -> Iterator[Made]:
        """Decodes at the fixed chunk size, padding the last chunk with zeros."""
        latents = torch.zeros(self.decode_batch, *self.model.latent_shape, device=self.model.device)
        latents[: len(done)] = torch.stack([x for _, x in done])
        pixels = self.model.decode(latents)
        for (row, _), image in zip(done, pixels, strict=False):
            yield Made(gid=row.gid, pixels=image)
