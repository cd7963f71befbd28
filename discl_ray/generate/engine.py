"""The engine: img2img for rows at different λ in one batch that never changes its shape.

Images at different λ need different numbers of steps. A batch of `micro_batch` rows is kept full: every row has its own place
in the schedule, a finished row leaves for the VAE and a waiting one takes its slot, longest first. Because the shape never
changes, a row's bytes do not depend on who sits beside it.

Several threads may call `run` at once; one thread of the engine's own does the work for all of them, older calls first, so that
the end of one shard is filled up with the beginning of the next.

It agrees with diffusers' img2img pipelines on the same noise (tests prove it): per row one generator, from which the posterior
sample, then the noise, then whatever a stochastic sampler asks for are drawn; z_t = sqrt(a_t) z + sqrt(1-a_t) e (paper §3.1).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from discl_ray.cluster.heartbeat import Phase
from discl_ray.core.schema import BROKEN
from discl_ray.generate.samplers import COEFFICIENTS, Table

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image to make."""

    gid: str
    source_id: str
    """What `source` is cached under."""
    source: NDArray[np.uint8]
    """The real image at the model's size, RGB (H, W, 3)."""
    prompt: str
    negative_prompt: str
    seed: int
    num_steps: int
    """Steps to take: the last `num_steps` of the sampler's T."""
    pure: bool = False
    """Start from pure noise; only for a row that takes all steps."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """One image made, or the reason why there is none."""

    gid: str
    pixels: NDArray[np.uint8] | None
    """RGB (H, W, 3)."""
    error: str | None = None
    """core.schema.BROKEN, if that is how it came out."""
    micro_batch: int
    """The batch it was made in; equal batches give equal bytes."""


class Model(Protocol):
    """What the engine asks of a diffusion model; generate/diffusion.py has those of diffusers."""

    device: torch.device
    size: tuple[int, int]
    scaling: float
    latent_shape: tuple[int, int, int]

    def encode_source(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]: ...  # noqa: D102
    def encode_prompts(self, negative: str, prompt: str) -> tuple[Tensor, ...]: ...  # noqa: D102
    def denoise(  # noqa: D102
        self, latents: Tensor, timesteps: Tensor, conditioning: tuple[Tensor, ...]
    ) -> Tensor: ...
    def decode(self, latents: Tensor, *, safe: bool = False) -> tuple[Tensor, Tensor]: ...  # noqa: D102


class Bounded(OrderedDict[Hashable, Any]):
    """The `limit` results used last, by key."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def of(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result kept under `key`, or a new one."""
        if key not in self:
            self[key] = make()
            if len(self) > self.limit:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


@dataclass(eq=False)
class _Call:
    """One `run`: what waits, fewest steps first, and where its results go."""

    waiting: list[Row]
    results: SimpleQueue[Made | BaseException] = field(default_factory=SimpleQueue)
    cancelled: bool = False


@dataclass
class _Slot:
    row: Row
    call: _Call
    left: int
    """Steps still to take."""
    generator: torch.Generator


@dataclass
class _Flight:
    """A decoded chunk on its way to the host."""

    chunk: list[tuple[_Slot, Tensor]]
    pixels: Tensor
    bad: Tensor
    arrived: torch.cuda.Event | None

    @classmethod
    def start(cls, chunk: list[tuple[_Slot, Tensor]], pixels: Tensor, bad: Tensor) -> _Flight:
        if pixels.device.type != "cuda":
            return cls(chunk, pixels, bad, None)
        host = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
        host_bad = torch.empty(bad.shape, dtype=bad.dtype, pin_memory=True)
        host.copy_(pixels, non_blocking=True)
        host_bad.copy_(bad, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return cls(chunk, host, host_bad, event)


class Engine:
    """Makes images for iterables of rows; holds the model, the sampler's table and the batch. Thread-safe."""

    def __init__(
        self,
        model: Model,
        table: Table,
        *,
        cfg_scale: float,
        micro_batch: int,
        decode_batch: int,
        cached_sources: int = 256,
        cached_prompts: int = 1024,
    ) -> None:
        self.model, self.table, self.cfg_scale = model, table, cfg_scale
        self.micro_batch, self.decode_batch = micro_batch, decode_batch
        self.guided = cfg_scale > 1
        columns = np.stack([getattr(table, name) for name in COEFFICIENTS]).astype(np.float32)
        self._coefficients = torch.from_numpy(columns).to(model.device)
        self._timesteps = torch.from_numpy(table.timesteps.astype(np.float32)).to(model.device)
        self._sources, self._prompts = Bounded(cached_sources), Bounded(cached_prompts)
        self._calls: list[_Call] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.useful_rows = 0
        """Rows of UNet work that belonged to an image, so far."""
        self.total_rows = 0
        """Rows of UNet work in all; the difference is padding."""
        self.images = 0
        """Images delivered so far."""
        self.phase: Phase = "idle"
        """What the engine is at: `idle`, `starting` (until the first image; this may compile for minutes), `working`."""
        self.seconds = 0.0
        """Time spent in phase `working`."""
        self.steps = 0
        """`total_rows` of that time: per second, what a full batch gets on by."""
        self._empty()

    def _empty(self) -> None:
        """A batch of padding."""
        batch, device = self.micro_batch, self.model.device
        self._slots: list[_Slot | None] = [None] * batch
        self._latents = torch.zeros(batch, *self.model.latent_shape, device=device)
        self._history = torch.zeros_like(self._latents) if self.table.multistep else None
        self._fresh = torch.ones(batch, 1, 1, 1, dtype=torch.bool, device=device)
        self._step = torch.full((batch,), self.table.num_steps - 1, device=device)
        self._conditioning: tuple[Tensor, ...] | None = None
        self._done: list[tuple[_Slot, Tensor]] = []
        self._flights: deque[_Flight] = deque()

    def run(self, rows: Iterable[Row]) -> Iterator[Made]:
        """Yields every row's image, in the order they are finished. May be called from several threads at once.

        Raises ValueError for a row with more steps than the schedule has, or none, or a source of another size than the model's.
        """
        waiting = sorted(
            rows, key=lambda r: r.num_steps
        )  # the last, with most steps, is admitted first
        for row in waiting:
            if not 1 <= row.num_steps <= self.table.num_steps:
                raise ValueError(
                    f"row {row.gid}: {row.num_steps} steps; allowed: 1 to {self.table.num_steps}"
                )
            if row.source.shape != (*self.model.size, 3):
                raise ValueError(
                    f"row {row.gid}: a source of shape {row.source.shape}; needed is {(*self.model.size, 3)}"
                )
        call, count = _Call(waiting), len(waiting)
        with self._changed:
            self._calls.append(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            for _ in range(count):
                result = call.results.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            call.cancelled = True  # a caller that stops early leaves nothing behind
            with self._changed:
                if call in self._calls:
                    self._calls.remove(call)

    def close(self) -> None:
        """Ends the engine's thread once it is idle."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @torch.inference_mode()
    def _serve(self) -> None:
        torch.set_num_threads(
            torch.get_num_threads()
        )  # OpenMP counts per thread; a new one would take all cores
        while self._has_work():
            start, before, phase = time.perf_counter(), self.total_rows, self.phase
            try:
                self._admit()
                if any(self._slots):
                    self._advance()
                self._deliver()
                if phase == "working":
                    self.seconds += time.perf_counter() - start
                    self.steps += self.total_rows - before
            except torch.OutOfMemoryError as error:
                self._halve(error)
            except Exception as error:  # whatever it is, the callers are told
                self._fail(error)

    def _has_work(self) -> bool:
        """Waits until there is some; False once the engine is closed."""
        with self._changed:
            while not (
                any(self._slots)
                or self._done
                or self._flights
                or any(c.waiting for c in self._calls)
            ):
                self.phase = "idle"
                if self._closed:
                    return False
                self._changed.wait()
            self.phase = "working" if self.images else "starting"
        return True

    def _next(self) -> tuple[Row, _Call] | None:
        """The longest waiting row of the oldest call."""
        with self._changed:
            for call in self._calls:
                if call.waiting:
                    return call.waiting.pop(), call
        return None

    def _admit(self) -> None:
        """Fills free slots."""
        for i, slot in enumerate(self._slots):
            if slot is not None and slot.call.cancelled:
                self._slots[i] = slot = None
            if slot is not None:
                continue
            found = self._next()
            if found is None:
                continue
            row, call = found
            self._slots[i] = slot = _Slot(
                row, call, row.num_steps, torch.Generator().manual_seed(row.seed)
            )
            first = self.table.num_steps - row.num_steps
            self._latents[i] = self._start(slot, first)
            self._step[i], self._fresh[i] = first, True
            prompts = (row.negative_prompt, row.prompt)
            told = self._prompts.of(prompts, lambda p=prompts: self.model.encode_prompts(*p))
            if self._conditioning is None:
                sides = 2 if self.guided else 1
                self._conditioning = tuple(
                    t.new_zeros(sides, self.micro_batch, *t.shape[1:]) for t in told
                )
            for whole, part in zip(self._conditioning, told, strict=True):
                whole[:, i] = part if self.guided else part[1:]

    def _start(self, slot: _Slot, first: int) -> Tensor:
        """The noised latent a row starts from at step `first`."""
        row, shape = slot.row, (1, *self.model.latent_shape)
        mean, std = self._sources.of(row.source_id, lambda: self.model.encode_source(row.source))
        posterior, noise = self._send(
            torch.cat([torch.randn(shape, generator=slot.generator) for _ in range(2)])
        )
        if row.pure:
            return self.table.pure * noise
        source = self.model.scaling * (mean + std * posterior)
        return (
            float(np.float32(self.table.signal[first])) * source
            + float(np.float32(self.table.spread[first])) * noise
        )

    def _advance(self) -> None:
        """One step for every slot: guidance e = e_u + s (e_c - e_u), then the sampler's row of its table."""
        active = [(i, slot) for i, slot in enumerate(self._slots) if slot is not None]
        x, conditioning = self._latents, self._conditioning
        assert conditioning is not None
        scale, keep, push, past, kick, data_keep, data_push = (
            column.view(-1, 1, 1, 1) for column in self._coefficients[:7, self._step]
        )
        sides = 2 if self.guided else 1
        inputs = scale * x
        flat = tuple(t.flatten(0, 1) for t in conditioning)
        out = self.model.denoise(
            inputs.repeat(sides, 1, 1, 1), self._timesteps[self._step].repeat(sides), flat
        )
        if self.guided:
            unconditional, conditional = out.chunk(2)
            out = unconditional + self.cfg_scale * (conditional - unconditional)
        following = keep * x + push * out
        if self._history is not None:
            data = data_keep * x + data_push * out
            following += past * torch.where(self._fresh, data, self._history)
            self._history = data
            self._fresh.zero_()
        if self.table.kick.any():
            following += kick * self._noise(active)
        self._latents = following
        self._step = (self._step + 1).clamp_(
            max=self.table.num_steps - 1
        )  # empty slots idle at the last step
        self.useful_rows += len(active)
        self.total_rows += len(self._slots)
        for i, slot in active:
            slot.left -= 1
            if slot.left == 0:
                self._done.append((slot, following[i].clone()))
                self._slots[i] = None

    def _noise(self, active: list[tuple[int, _Slot]]) -> Tensor:
        """Fresh noise from each row's own generator, where its step asks for some."""
        noise = torch.zeros(self._latents.shape)
        for i, slot in active:
            if self.table.kick[self.table.num_steps - slot.left] > 0:
                noise[i] = torch.randn((1, *self.model.latent_shape), generator=slot.generator)[0]
        return self._send(noise)

    def _send(self, x: Tensor) -> Tensor:
        """A host tensor on the device, without waiting for what the device is at."""
        if self.model.device.type != "cuda":
            return x
        return x.pin_memory().to(self.model.device, non_blocking=True)

    def _deliver(self) -> None:
        """Decodes finished rows, a chunk at a time, and hands over what has arrived; the rest once nothing else is to be done."""
        with self._changed:
            idle = not any(self._slots) and not any(c.waiting for c in self._calls)
        while len(self._done) >= self.decode_batch or (idle and self._done):
            chunk = self._done[: self.decode_batch]
            latents = torch.zeros(
                self.decode_batch, *self.model.latent_shape, device=self.model.device
            )
            latents[: len(chunk)] = torch.stack([x for _, x in chunk])
            self._flights.append(_Flight.start(chunk, *self.model.decode(latents)))
            del self._done[: len(chunk)]
        while self._flights and (
            idle or self._flights[0].arrived is None or self._flights[0].arrived.query()
        ):
            flight = self._flights[0]
            if flight.arrived is not None:
                flight.arrived.synchronize()
            pixels = [
                flight.pixels[i] if not flight.bad[i] else self._decode_again(x)
                for i, (_, x) in enumerate(flight.chunk)
            ]
            self._flights.popleft()  # from here on nothing can fail: no row is delivered twice
            for (slot, _), image in zip(flight.chunk, pixels, strict=False):
                error = BROKEN if image is None else None
                ready = None if image is None else image.cpu().numpy()
                slot.call.results.put(
                    Made(gid=slot.row.gid, pixels=ready, error=error, micro_batch=self.micro_batch)
                )
            self.images += len(flight.chunk)

    def _decode_again(self, latent: Tensor) -> Tensor | None:
        """An image that came out black or not finite, in float32; None if it still does."""
        latents = torch.zeros(self.decode_batch, *self.model.latent_shape, device=self.model.device)
        latents[0] = latent
        pixels, bad = self.model.decode(latents, safe=True)
        return None if bad[0] else pixels[0]

    def _unfinished(self) -> list[_Slot]:
        """Every admitted row that has not been delivered."""
        decoded = [slot for flight in self._flights for slot, _ in flight.chunk]
        return (
            [s for s in self._slots if s is not None] + [slot for slot, _ in self._done] + decoded
        )

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        """Out of memory: the rows underway begin again, in half the batch; with one row there is nothing left to halve."""
        rows = self._unfinished()
        if self.micro_batch == 1 and self.decode_batch == 1:
            self._fail(error)
            return
        self.micro_batch, self.decode_batch = (
            max(1, self.micro_batch // 2),
            max(1, self.decode_batch // 2),
        )
        with self._changed:
            for slot in rows:
                slot.call.waiting.append(slot.row)
                slot.call.waiting.sort(key=lambda r: r.num_steps)
        self._empty()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _fail(self, error: Exception) -> None:
        """Every caller gets the error; the engine starts afresh with whoever comes next."""
        with self._changed:
            calls, self._calls = self._calls, []
        for call in calls:
            call.results.put(error)
        self._empty()
