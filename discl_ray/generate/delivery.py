"""From finished latents to the callers' images: decoding in batches of one shape, and the copies.

The VAE's batch never changes its shape either: chunks that are not full are padded. On a GPU the
pixels are copied to the host while the UNet goes on, and are delivered when the copy is complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from discl_ray.core.schema import BROKEN
from discl_ray.generate.rows import Made, Model, Slot


class Finished(NamedTuple):
    """A row that has taken all its steps."""

    slot: Slot
    latent: Tensor
    """Of the model's `latent_shape`."""


@dataclass
class Flight:
    """A decoded chunk whose pixels are being copied to the host."""

    chunk: list[Finished]
    pixels: Tensor
    """RGB uint8; only the first `len(chunk)` images are of rows."""
    bad: Tensor
    """Which images are black or not finite."""
    copied: torch.cuda.Event | None
    """Recorded after the copy; None on the CPU, where nothing is copied."""

    @classmethod
    def start(cls, chunk: list[Finished], pixels: Tensor, bad: Tensor) -> Flight:
        """Starts the copy."""
        if pixels.device.type != "cuda":
            return cls(chunk, pixels, bad, None)
        host_pixels = _copy_to_host(pixels)
        host_bad = _copy_to_host(bad)
        event = torch.cuda.Event()
        event.record()
        return cls(chunk, host_pixels, host_bad, event)

    @property
    def ready(self) -> bool:
        """Whether the copy is complete."""
        return self.copied is None or self.copied.query()

    def wait(self) -> None:
        """Waits for the copy."""
        if self.copied is not None:
            self.copied.synchronize()


def _copy_to_host(x: Tensor) -> Tensor:
    """A copy in pinned memory, without which CUDA would wait for it; not yet complete."""
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    return host


class Delivery:
    """Finished rows, decoded in chunks and given to their callers."""

    def __init__(self, model: Model, batch: int) -> None:
        self.model = model
        self.batch = batch
        """Images decoded at once."""
        self.images = 0
        """Images delivered so far."""
        self._finished: list[Finished] = []
        self._flights: deque[Flight] = deque()

    def __bool__(self) -> bool:
        """Whether a row is still to be delivered."""
        return bool(self._finished or self._flights)

    def add(self, slot: Slot, latent: Tensor) -> None:
        """Takes a row over that has left the batch."""
        self._finished.append(Finished(slot, latent))

    def clear(self) -> None:
        """Forgets all rows."""
        self._finished.clear()
        self._flights.clear()

    def slots(self) -> Iterator[Slot]:
        """Every row that is not delivered yet."""
        for finished in self._finished:
            yield finished.slot
        for flight in self._flights:
            for finished in flight.chunk:
                yield finished.slot

    def advance(self, *, everything: bool, micro_batch: int) -> None:
        """Decodes full chunks and delivers copied ones; or all there is, waiting for it.

        `micro_batch` is the batch in which the rows were made.
        """
        while len(self._finished) >= self.batch:
            self._decode_chunk()
        if everything and self._finished:
            self._decode_chunk()
        # the oldest first: copies are completed in the order in which they were started
        while self._flights:
            if not everything and not self._flights[0].ready:
                return
            self._deliver(self._flights[0], micro_batch)

    def _decode_chunk(self) -> None:
        """Decodes one chunk and starts its copy to the host."""
        chunk = self._finished[: self.batch]
        latents = [finished.latent for finished in chunk]
        pixels, bad = self.model.decode(self._padded(latents))
        flight = Flight.start(chunk, pixels, bad)
        # only now: rows whose decoding fails stay with the finished ones
        self._flights.append(flight)
        del self._finished[: len(chunk)]

    def _padded(self, latents: list[Tensor]) -> Tensor:
        """Latents as a batch of the decoder's one shape."""
        shape = (self.batch, *self.model.latent_shape)
        batch = torch.zeros(shape, device=self.model.device)
        batch[: len(latents)] = torch.stack(latents)
        return batch

    def _deliver(self, flight: Flight, micro_batch: int) -> None:
        """Gives the oldest chunk's images to their callers; waits for its copy."""
        flight.wait()
        images: list[Tensor | None] = []
        for i, finished in enumerate(flight.chunk):
            image = flight.pixels[i]
            if flight.bad[i]:
                image = self._decode_again(finished.latent)
            images.append(image)
        self._flights.popleft()  # from here on nothing can fail: no row is delivered twice
        for finished, image in zip(flight.chunk, images, strict=True):
            slot = finished.slot
            made = _made(slot.row.gid, image, micro_batch)
            slot.call.results.put(made)
        self.images += len(flight.chunk)

    def _decode_again(self, latent: Tensor) -> Tensor | None:
        """A black or not finite image decoded again in float32; None if it still is."""
        latents = self._padded([latent])
        pixels, bad = self.model.decode(latents, safe=True)
        return None if bad[0] else pixels[0]


def _made(gid: str, image: Tensor | None, micro_batch: int) -> Made:
    """The result of a row; no image is the reason BROKEN."""
    if image is None:
        return Made(gid=gid, pixels=None, error=BROKEN, micro_batch=micro_batch)
    pixels = image.cpu().numpy()
    return Made(gid=gid, pixels=pixels, micro_batch=micro_batch)
