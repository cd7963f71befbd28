"""The engine: img2img for rows at different λ in one batch that never changes its shape.

Images at different λ need different numbers of steps. A batch of `micro_batch` rows is kept full:
every row has its own step of the schedule, a finished row leaves for the VAE and a waiting one
takes its slot, longest first. Because the shape never changes, a row's bytes do not depend on
the other rows.

Several threads may call `run` at once. One thread of the engine's own does the work for all of
them, older calls first, so that the end of one shard overlaps the beginning of the next.

It agrees with diffusers' img2img pipelines on the same noise (tests prove it): each row has one
generator, from which the posterior sample, then the noise, then a stochastic sampler's noise are
drawn; z_t = sqrt(a_t) z + sqrt(1-a_t) e (paper §3.1).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from discl_ray.cluster.heartbeat import Phase
from discl_ray.core.schema import BROKEN
from discl_ray.generate.samplers import STEP_COEFFICIENTS, Table

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


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
    """Steps to take: the last `num_steps` of the sampler's T; at least 1."""
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
    """What the engine needs of a model; generate/diffusion.py adapts those of diffusers."""

    device: torch.device
    size: tuple[int, int]
    """(height, width) in pixels."""
    scaling: float
    """Factor of the VAE's latents in the diffusion process."""
    latent_shape: tuple[int, int, int]

    def encode_source(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE posterior of RGB uint8 (*size, 3)."""
        ...

    def encode_prompts(self, negative: str, prompt: str) -> tuple[Tensor, ...]:
        """The UNet's conditioning; each tensor has the negative prompt's row, then the prompt's."""
        ...

    def denoise(
        self, latents: Tensor, timesteps: Tensor, conditioning: tuple[Tensor, ...]
    ) -> Tensor:
        """The UNet's output, float32, for rows at timesteps of their own."""
        ...

    def decode(self, latents: Tensor, *, safe: bool = False) -> tuple[Tensor, Tensor]:
        """RGB uint8 (N, *size, 3), and which images are black or not finite, bool (N,)."""
        ...


class LRUCache(Generic[K, V]):
    """The `limit` results used last, by key."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._results: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The result under `key`; made and kept if there is none."""
        if key not in self._results:
            self._results[key] = make()
            if len(self._results) > self.limit:
                self._results.popitem(last=False)
        self._results.move_to_end(key)
        return self._results[key]


class Coefficients(NamedTuple):
    """A step's coefficients of every slot (generate/samplers.py), each (B, 1, 1, 1), float32."""

    c_in: Tensor
    c_x: Tensor
    c_out: Tensor
    c_prev: Tensor
    noise_std: Tensor
    x0_c_x: Tensor
    x0_c_out: Tensor


@dataclass(eq=False)
class _Call:
    """One call of `run`: its waiting rows, fewest steps first, and the queue of its results."""

    waiting: list[Row]
    results: SimpleQueue[Made | BaseException] = field(default_factory=SimpleQueue)
    cancelled: bool = False


@dataclass
class _Slot:
    """A row in the batch."""

    row: Row
    call: _Call
    steps_left: int
    generator: torch.Generator


@dataclass
class _Flight:
    """A decoded chunk whose pixels are being copied to the host."""

    chunk: list[tuple[_Slot, Tensor]]
    pixels: Tensor
    bad: Tensor
    copied: torch.cuda.Event | None
    """Recorded after the copy; None on the CPU, where nothing is copied."""

    @classmethod
    def start(cls, chunk: list[tuple[_Slot, Tensor]], pixels: Tensor, bad: Tensor) -> _Flight:
        """Starts the copy."""
        if pixels.device.type != "cuda":
            return cls(chunk, pixels, bad, None)
        host = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
        host_bad = torch.empty(bad.shape, dtype=bad.dtype, pin_memory=True)
        host.copy_(pixels, non_blocking=True)
        host_bad.copy_(bad, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return cls(chunk, host, host_bad, event)

    @property
    def ready(self) -> bool:
        """Whether the copy is complete."""
        return self.copied is None or self.copied.query()

    def wait(self) -> None:
        """Waits for the copy."""
        if self.copied is not None:
            self.copied.synchronize()


class Engine:
    """Makes images for iterables of rows; holds model, sampler table and batch. Thread-safe."""

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
        self.model = model
        self.table = table
        self.cfg_scale = cfg_scale
        self.guided = cfg_scale > 1
        self.micro_batch = micro_batch
        self.decode_batch = decode_batch
        columns = np.stack([getattr(table, name) for name in STEP_COEFFICIENTS])
        self._coefficients = _float32(columns, model.device)
        self._timesteps = _float32(table.timesteps, model.device)
        self._sources: LRUCache[str, tuple[Tensor, Tensor]] = LRUCache(cached_sources)
        self._prompts: LRUCache[tuple[str, str], tuple[Tensor, ...]] = LRUCache(cached_prompts)
        self._calls: list[_Call] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.useful_rows = 0
        """UNet rows computed for images, so far."""
        self.total_rows = 0
        """UNet rows computed in all; the difference is padding."""
        self.images = 0
        """Images delivered so far."""
        self.phase: Phase = "idle"
        """`starting` lasts until the first image; it may compile for minutes."""
        self.seconds = 0.0
        """Time spent in phase `working`."""
        self.steps = 0
        """UNet rows computed in that time; `steps / seconds` is the speed with a full batch."""
        self._empty()

    def _empty(self) -> None:
        """Resets the batch to padding."""
        batch, device = self.micro_batch, self.model.device
        self._slots: list[_Slot | None] = [None] * batch
        self._latents = torch.zeros(batch, *self.model.latent_shape, device=device)
        self._x0_prev = torch.zeros_like(self._latents) if self.table.multistep else None
        self._first_step = torch.ones(batch, 1, 1, 1, dtype=torch.bool, device=device)
        self._step = torch.full((batch,), self.table.num_steps - 1, device=device)
        self._conditioning: tuple[Tensor, ...] | None = None
        self._finished: list[tuple[_Slot, Tensor]] = []
        self._flights: deque[_Flight] = deque()

    def run(self, rows: Iterable[Row]) -> Iterator[Made]:
        """Yields every row's image as it is finished. Several threads may call it at once.

        Raises ValueError for a row whose steps are not 1 to T, or whose source is not of the
        model's size.
        """
        waiting = sorted(rows, key=_steps)  # taken from the end: most steps first
        for row in waiting:
            self._check(row)
        call = _Call(waiting)
        count = len(waiting)
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
            call.cancelled = True  # a caller that stops early leaves no rows behind
            with self._changed:
                if call in self._calls:
                    self._calls.remove(call)

    def _check(self, row: Row) -> None:
        num_steps = self.table.num_steps
        if not 1 <= row.num_steps <= num_steps:
            raise ValueError(f"row {row.gid}: {row.num_steps} steps; allowed: 1 to {num_steps}")
        shape = (*self.model.size, 3)
        if row.source.shape != shape:
            raise ValueError(
                f"row {row.gid}: a source of shape {row.source.shape}; needed is {shape}"
            )

    def close(self) -> None:
        """Ends the engine's thread once all rows are delivered."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @torch.inference_mode()
    def _serve(self) -> None:
        # OpenMP keeps the number per thread: a new thread would use all cores
        torch.set_num_threads(torch.get_num_threads())
        while self._has_work():
            start = time.perf_counter()
            rows_before = self.total_rows
            phase = self.phase
            try:
                self._admit()
                if any(self._slots):
                    self._advance()
                self._deliver()
                if phase == "working":
                    self.seconds += time.perf_counter() - start
                    self.steps += self.total_rows - rows_before
            except torch.OutOfMemoryError as error:
                self._halve(error)
            except Exception as error:  # raised again in the callers' threads
                self._fail(error)

    def _has_work(self) -> bool:
        """Waits for work; False once the engine is closed."""
        with self._changed:
            while not (any(self._slots) or self._finished or self._flights or self._any_waiting()):
                self.phase = "idle"
                if self._closed:
                    return False
                self._changed.wait()
            self.phase = "working" if self.images else "starting"
        return True

    def _any_waiting(self) -> bool:
        """Whether a row waits for a slot; the caller holds the lock."""
        return any(call.waiting for call in self._calls)

    def _next(self) -> tuple[Row, _Call] | None:
        """The longest waiting row of the oldest call."""
        with self._changed:
            for call in self._calls:
                if call.waiting:
                    return call.waiting.pop(), call
        return None

    def _admit(self) -> None:
        """Fills free slots with waiting rows."""
        for i, slot in enumerate(self._slots):
            if slot is not None and slot.call.cancelled:
                self._slots[i] = slot = None
            if slot is not None:
                continue
            found = self._next()
            if found is not None:
                self._place(i, *found)

    def _place(self, i: int, row: Row, call: _Call) -> None:
        """Puts a row at its first step into slot `i`."""
        generator = torch.Generator().manual_seed(row.seed)
        first = self.table.num_steps - row.num_steps
        # in its slot before it is encoded: an error meanwhile must not lose the row
        self._slots[i] = _Slot(row, call, row.num_steps, generator)
        self._latents[i] = self._start(row, generator, first)
        self._step[i] = first
        self._first_step[i] = True
        negative, prompt = row.negative_prompt, row.prompt
        encoded = self._prompts.get(
            (negative, prompt), lambda: self.model.encode_prompts(negative, prompt)
        )
        if self._conditioning is None:
            self._conditioning = tuple(self._blank(tensor) for tensor in encoded)
        for batch, sides in zip(self._conditioning, encoded, strict=True):
            batch[:, i] = sides if self.guided else sides[1:]

    def _blank(self, encoded: Tensor) -> Tensor:
        """Zeros for the whole batch's conditioning: both prompts with guidance, else the prompt."""
        sides = 2 if self.guided else 1
        return encoded.new_zeros(sides, self.micro_batch, *encoded.shape[1:])

    def _start(self, row: Row, generator: torch.Generator, first: int) -> Tensor:
        """The noised latent a row starts from at step `first`."""
        mean, std = self._sources.get(row.source_id, lambda: self.model.encode_source(row.source))
        shape = (1, *self.model.latent_shape)
        # a row that starts from pure noise draws both, too: one order of draws for all rows
        draws = [torch.randn(shape, generator=generator) for _ in range(2)]
        posterior, noise = self._send(torch.cat(draws))
        if row.pure:
            return self.table.pure * noise
        source = self.model.scaling * (mean + std * posterior)
        # rounded to float32 first, as diffusers holds its schedule
        sqrt_alpha_bar = float(np.float32(self.table.sqrt_alpha_bar[first]))
        sigma = float(np.float32(self.table.sigma[first]))
        return sqrt_alpha_bar * source + sigma * noise

    def _advance(self) -> None:
        """One step for every slot: the guided network output, then the sampler's linear update."""
        active = [(i, slot) for i, slot in enumerate(self._slots) if slot is not None]
        x = self._latents
        columns = self._coefficients[:, self._step]
        c = Coefficients(*(column.view(-1, 1, 1, 1) for column in columns))
        out = self._predict(c.c_in * x)
        following = c.c_x * x + c.c_out * out
        if self._x0_prev is not None:
            x0 = c.x0_c_x * x + c.x0_c_out * out
            following += c.c_prev * torch.where(self._first_step, x0, self._x0_prev)
            self._x0_prev = x0
            self._first_step.zero_()
        if self.table.stochastic:
            following += c.noise_std * self._noise(active)
        self._latents = following
        # empty slots stay at the last step
        self._step = (self._step + 1).clamp_(max=self.table.num_steps - 1)
        self.useful_rows += len(active)
        self.total_rows += len(self._slots)
        for i, slot in active:
            slot.steps_left -= 1
            if slot.steps_left == 0:
                self._finished.append((slot, following[i].clone()))
                self._slots[i] = None

    def _predict(self, inputs: Tensor) -> Tensor:
        """The guided network output, e = e_u + s (e_c - e_u), from one forward of 2B rows."""
        assert self._conditioning is not None
        sides = 2 if self.guided else 1
        timesteps = self._timesteps[self._step].repeat(sides)
        conditioning = tuple(tensor.flatten(0, 1) for tensor in self._conditioning)
        out = self.model.denoise(inputs.repeat(sides, 1, 1, 1), timesteps, conditioning)
        if not self.guided:
            return out
        unconditional, conditional = out.chunk(2)
        return unconditional + self.cfg_scale * (conditional - unconditional)

    def _noise(self, active: list[tuple[int, _Slot]]) -> Tensor:
        """Fresh noise from each row's own generator, where its step needs any."""
        noise = torch.zeros(self._latents.shape)
        shape = (1, *self.model.latent_shape)
        for i, slot in active:
            step = self.table.num_steps - slot.steps_left
            if self.table.noise_std[step] > 0:
                noise[i] = torch.randn(shape, generator=slot.generator)[0]
        return self._send(noise)

    def _send(self, x: Tensor) -> Tensor:
        """A host tensor on the device, without waiting for the device's queue."""
        if self.model.device.type != "cuda":
            return x
        return x.pin_memory().to(self.model.device, non_blocking=True)

    def _deliver(self) -> None:
        """Decodes full chunks of finished rows and delivers copied ones; all once idle."""
        with self._changed:
            idle = not any(self._slots) and not self._any_waiting()
        while len(self._finished) >= self.decode_batch or (idle and self._finished):
            self._decode_chunk()
        while self._flights and (idle or self._flights[0].ready):
            self._deliver_flight()

    def _decode_chunk(self) -> None:
        """Decodes one chunk, padded to `decode_batch`, and starts its copy to the host."""
        chunk = self._finished[: self.decode_batch]
        latents = self._padded([latent for _, latent in chunk])
        pixels, bad = self.model.decode(latents)
        self._flights.append(_Flight.start(chunk, pixels, bad))
        del self._finished[: len(chunk)]

    def _padded(self, latents: list[Tensor]) -> Tensor:
        """Latents as a batch of the decoder's one shape."""
        shape = (self.decode_batch, *self.model.latent_shape)
        batch = torch.zeros(shape, device=self.model.device)
        batch[: len(latents)] = torch.stack(latents)
        return batch

    def _deliver_flight(self) -> None:
        """Gives the oldest chunk's images to their callers; waits for its copy."""
        flight = self._flights[0]
        flight.wait()
        images: list[Tensor | None] = []
        for i, (_, latent) in enumerate(flight.chunk):
            images.append(self._decode_again(latent) if flight.bad[i] else flight.pixels[i])
        self._flights.popleft()  # from here on nothing can fail: no row is delivered twice
        for (slot, _), image in zip(flight.chunk, images, strict=True):
            made = Made(
                gid=slot.row.gid,
                pixels=None if image is None else image.cpu().numpy(),
                error=BROKEN if image is None else None,
                micro_batch=self.micro_batch,
            )
            slot.call.results.put(made)
        self.images += len(flight.chunk)

    def _decode_again(self, latent: Tensor) -> Tensor | None:
        """A black or not finite image decoded again in float32; None if it still is."""
        pixels, bad = self.model.decode(self._padded([latent]), safe=True)
        return None if bad[0] else pixels[0]

    def _undelivered(self) -> list[_Slot]:
        """Every admitted row that has not been delivered."""
        slots = [slot for slot in self._slots if slot is not None]
        slots += [slot for slot, _ in self._finished]
        for flight in self._flights:
            slots += [slot for slot, _ in flight.chunk]
        return slots

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        """Out of memory: halves both batches and restarts their rows; fails at a batch of one."""
        if self.micro_batch == 1 and self.decode_batch == 1:
            self._fail(error)
            return
        self.micro_batch = max(1, self.micro_batch // 2)
        self.decode_batch = max(1, self.decode_batch // 2)
        with self._changed:
            for slot in self._undelivered():
                slot.call.waiting.append(slot.row)
                slot.call.waiting.sort(key=_steps)
        self._empty()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _fail(self, error: Exception) -> None:
        """Raises the error in every caller and resets the batch."""
        with self._changed:
            calls = self._calls
            self._calls = []
        for call in calls:
            call.results.put(error)
        self._empty()


def _steps(row: Row) -> int:
    return row.num_steps


def _float32(array: NDArray[np.floating], device: torch.device) -> Tensor:
    return torch.from_numpy(array.astype(np.float32)).to(device)
