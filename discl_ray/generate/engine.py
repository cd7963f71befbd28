"""The engine: img2img for rows at different λ in one batch that never changes its shape.

Images at different λ need different numbers of steps. A batch of `micro_batch` rows is kept full:
every row has its own step of the schedule, a finished row leaves for the VAE (generate/delivery.py)
and a waiting one takes its slot, longest first. Because the shape never changes, a row's bytes do
not depend on the other rows.

Several threads may call `run` at once. One thread of the engine's own does the work for all of
them, older calls first, so that the end of one shard overlaps the beginning of the next.

It agrees with diffusers' img2img pipelines on the same noise (tests prove it): each row has one
generator, from which the posterior sample, then the noise, then a stochastic sampler's noise are
drawn; z_t = sqrt(a_t) z + sqrt(1-a_t) e (paper §3.1).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from discl_ray.cluster.heartbeat import Phase
from discl_ray.generate.delivery import Delivery
from discl_ray.generate.lru_cache import LRUCache
from discl_ray.generate.rows import Call, Conditioning, Made, Model, Row, Slot
from discl_ray.generate.samplers import STEP_COEFFICIENTS, Table

Active = list[tuple[int, Slot]]
"""Rows in the batch and their indices."""


class Coefficients(NamedTuple):
    """A step's coefficients of every slot (generate/samplers.py), each (B, 1, 1, 1), float32."""

    c_in: Tensor
    c_x: Tensor
    c_out: Tensor
    c_prev: Tensor
    noise_std: Tensor
    x0_c_x: Tensor
    x0_c_out: Tensor


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
        columns = [getattr(table, name) for name in STEP_COEFFICIENTS]
        self._coefficients = _float32(np.stack(columns), model.device)
        self._timesteps = _float32(table.timesteps, model.device)
        self._sources: LRUCache[str, tuple[Tensor, Tensor]] = LRUCache(cached_sources)
        self._prompts: LRUCache[tuple[str, str], Conditioning] = LRUCache(cached_prompts)
        self._delivery = Delivery(model, decode_batch)
        self._calls: list[Call] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.useful_rows = 0
        """UNet rows computed for images, so far."""
        self.total_rows = 0
        """UNet rows computed in all; the difference is padding."""
        self.phase: Phase = "idle"
        """`starting` lasts until the first image; it may compile for minutes."""
        self.seconds = 0.0
        """Time spent in phase `working`."""
        self.steps = 0
        """UNet rows computed in that time; `steps / seconds` is the speed with a full batch."""
        self._empty()

    @property
    def decode_batch(self) -> int:
        """Images decoded at once."""
        return self._delivery.batch

    @property
    def images(self) -> int:
        """Images delivered so far."""
        return self._delivery.images

    def _empty(self) -> None:
        """Resets the batch to padding."""
        batch = self.micro_batch
        device = self.model.device
        self._slots: list[Slot | None] = [None] * batch
        shape = (batch, *self.model.latent_shape)
        self._latents = torch.zeros(shape, device=device)
        self._x0_prev = torch.zeros_like(self._latents) if self.table.multistep else None
        self._first_step = torch.ones(batch, 1, 1, 1, dtype=torch.bool, device=device)
        # a slot without a row is computed like any other, and nothing is made of it
        last = self.table.num_steps - 1
        self._step = torch.full((batch,), last, device=device)
        self._conditioning: Conditioning | None = None
        self._delivery.clear()

    def run(self, rows: Iterable[Row]) -> Iterator[Made]:
        """Yields every row's image as it is finished. Several threads may call it at once.

        Raises ValueError for a row whose steps are not 1 to T, or whose source is not of the
        model's size.
        """
        waiting = sorted(rows, key=_steps)  # taken from the end: most steps first
        for row in waiting:
            self._check(row)
        count = len(waiting)  # before the call begins, which takes rows from the list
        call = Call(waiting)
        self._begin(call)
        try:
            for _ in range(count):
                result = call.results.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            self._end(call)

    def _begin(self, call: Call) -> None:
        """Queues a call; the first one starts the engine's thread."""
        with self._changed:
            self._calls.append(call)
            if self._thread is None:
                # a daemon: an engine that nobody closes must not keep its process alive
                self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _end(self, call: Call) -> None:
        """Forgets a call: one that stops early leaves no rows behind."""
        call.cancelled = True  # its rows in slots are dropped by the engine's own thread
        with self._changed:
            if call in self._calls:
                self._calls.remove(call)

    def _check(self, row: Row) -> None:
        """Raises ValueError for a row that this engine cannot make."""
        num_steps = self.table.num_steps
        if not 1 <= row.num_steps <= num_steps:
            raise ValueError(f"row {row.gid}: {row.num_steps} steps; allowed: 1 to {num_steps}")
        needed = (*self.model.size, 3)
        shape = row.source.shape
        if shape != needed:
            raise ValueError(f"row {row.gid}: a source of shape {shape}; needed is {needed}")

    def close(self) -> None:
        """Ends the engine's thread once all rows are delivered."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @torch.inference_mode()
    def _serve(self) -> None:
        """The engine's thread."""
        # OpenMP keeps the number per thread: a new thread would use all cores
        torch.set_num_threads(torch.get_num_threads())
        while self._has_work():
            try:
                self._turn()
            except torch.OutOfMemoryError as error:
                self._halve(error)
            except Exception as error:  # raised again in the callers' threads
                self._fail(error)

    def _turn(self) -> None:
        """One turn: new rows in, a step for all, finished rows out. Measured once it is warm."""
        start = time.perf_counter()
        rows_before = self.total_rows
        phase = self.phase
        self._admit()
        if any(self._slots):
            self._advance()
        self._deliver()
        if phase == "working":
            self.seconds += time.perf_counter() - start
            self.steps += self.total_rows - rows_before

    def _has_work(self) -> bool:
        """Waits for work; False once the engine is closed."""
        with self._changed:
            while not (any(self._slots) or self._delivery or self._any_waiting()):
                self.phase = "idle"
                if self._closed:
                    return False
                self._changed.wait()
            self.phase = "working" if self.images else "starting"
        return True

    def _any_waiting(self) -> bool:
        """Whether a row waits for a slot; the caller holds the lock."""
        return any(call.waiting for call in self._calls)

    def _next(self) -> tuple[Row, Call] | None:
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

    def _place(self, i: int, row: Row, call: Call) -> None:
        """Puts a row at its first step into slot `i`."""
        # on the CPU, where a seed draws the same noise whatever the device is
        generator = torch.Generator().manual_seed(row.seed)
        first = self.table.num_steps - row.num_steps
        # in its slot before it is encoded: an error meanwhile must not lose the row
        self._slots[i] = Slot(row, call, row.num_steps, generator)
        self._latents[i] = self._start(row, generator, first)
        self._step[i] = first
        self._first_step[i] = True
        self._condition(i, self._encoded(row))

    def _encoded(self, row: Row) -> Conditioning:
        """The UNet's conditioning by a row's two prompts."""
        prompts = (row.negative_prompt, row.prompt)
        return self._prompts.get(prompts, lambda: self.model.encode_prompts(*prompts))

    def _condition(self, i: int, encoded: Conditioning) -> None:
        """Writes a row's conditioning into slot `i`."""
        if self._conditioning is None:
            # only a model's first encoding tells the shapes
            blanks = map(self._blank, encoded)
            self._conditioning = tuple(blanks)
        for batch, sides in zip(self._conditioning, encoded, strict=True):
            batch[:, i] = sides if self.guided else sides[1:]

    def _blank(self, encoded: Tensor) -> Tensor:
        """Zeros for the whole batch's conditioning: both prompts with guidance, else the prompt."""
        sides = 2 if self.guided else 1
        return encoded.new_zeros(sides, self.micro_batch, *encoded.shape[1:])

    def _posterior(self, row: Row) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a row's source in the VAE."""
        source = row.source
        return self._sources.get(row.source_id, lambda: self.model.encode_source(source))

    def _start(self, row: Row, generator: torch.Generator, first: int) -> Tensor:
        """The noised latent a row starts from at step `first`."""
        mean, std = self._posterior(row)
        shape = (1, *self.model.latent_shape)
        # a row that starts from pure noise draws both, too: one order of draws for all rows
        draws = [torch.randn(shape, generator=generator) for _ in range(2)]
        both = torch.cat(draws)
        posterior, noise = self._send(both)
        if row.pure:
            return self.table.pure * noise
        source = self.model.scaling * (mean + std * posterior)
        # rounded to float32 first, as diffusers holds its schedule
        sqrt_alpha_bar = float(np.float32(self.table.sqrt_alpha_bar[first]))
        sigma = float(np.float32(self.table.sigma[first]))
        return sqrt_alpha_bar * source + sigma * noise

    def _advance(self) -> None:
        """One step for every slot: the guided network output, then the sampler's linear update."""
        active = self._active()
        x = self._latents
        c = self._step_coefficients()
        out = self._predict(c.c_in * x)
        following = c.c_x * x + c.c_out * out
        if self._x0_prev is not None:
            x0 = c.x0_c_x * x + c.x0_c_out * out
            # a row that has no step behind it takes its own
            x0_prev = torch.where(self._first_step, x0, self._x0_prev)
            following += c.c_prev * x0_prev
            self._x0_prev = x0
            self._first_step.zero_()
        if self.table.stochastic:
            following += c.noise_std * self._noise(active)
        self._latents = following
        # empty slots stay at the last step
        last = self.table.num_steps - 1
        self._step = (self._step + 1).clamp_(max=last)
        self.useful_rows += len(active)
        self.total_rows += len(self._slots)
        for i, slot in active:
            slot.steps_left -= 1
            if slot.steps_left == 0:
                latent = following[i].clone()  # not a view, which would keep the whole batch
                self._delivery.add(slot, latent)
                self._slots[i] = None

    def _active(self) -> Active:
        """The slots that hold a row."""
        active: Active = []
        for i, slot in enumerate(self._slots):
            if slot is not None:
                active.append((i, slot))
        return active

    def _step_coefficients(self) -> Coefficients:
        """The coefficients of every slot's own step."""
        columns = self._coefficients[:, self._step]
        as_latents = columns.view(len(columns), -1, 1, 1, 1)
        return Coefficients(*as_latents)

    def _predict(self, inputs: Tensor) -> Tensor:
        """The guided network output, e = e_u + s (e_c - e_u), from one forward of 2B rows."""
        assert self._conditioning is not None
        sides = 2 if self.guided else 1
        latents = inputs.repeat(sides, 1, 1, 1)
        timesteps = self._timesteps[self._step].repeat(sides)
        conditioning = tuple(tensor.flatten(0, 1) for tensor in self._conditioning)
        out = self.model.denoise(latents, timesteps, conditioning)
        if not self.guided:
            return out
        unconditional, conditional = out.chunk(2)  # the negative prompt is first
        direction = conditional - unconditional
        return unconditional + self.cfg_scale * direction

    def _noise(self, active: Active) -> Tensor:
        """Fresh noise from each row's own generator, where its step needs any."""
        noise = torch.zeros(self._latents.shape)
        shape = (1, *self.model.latent_shape)
        for i, slot in active:
            step = self.table.num_steps - slot.steps_left
            if self.table.noise_std[step] > 0:
                drawn = torch.randn(shape, generator=slot.generator)
                noise[i] = drawn[0]
        return self._send(noise)

    def _send(self, x: Tensor) -> Tensor:
        """A host tensor on the device, without waiting for the device's queue."""
        if self.model.device.type != "cuda":
            return x
        pinned = x.pin_memory()  # from other memory CUDA would wait for the copy
        return pinned.to(self.model.device, non_blocking=True)

    def _deliver(self) -> None:
        """Decodes full chunks of finished rows and delivers copied ones; all once idle."""
        with self._changed:
            idle = not any(self._slots) and not self._any_waiting()
        self._delivery.advance(everything=idle, micro_batch=self.micro_batch)

    def _undelivered(self) -> list[Slot]:
        """Every admitted row that has not been delivered."""
        slots = [slot for slot in self._slots if slot is not None]
        slots.extend(self._delivery.slots())
        return slots

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        """Out of memory: halves both batches and restarts their rows; fails at a batch of one."""
        if self.micro_batch == 1 and self.decode_batch == 1:
            self._fail(error)
            return
        self.micro_batch = max(1, self.micro_batch // 2)
        self._delivery.batch = max(1, self.decode_batch // 2)
        with self._changed:
            for slot in self._undelivered():
                # it will draw the same noise again, from a new generator
                slot.call.waiting.append(slot.row)
                slot.call.waiting.sort(key=_steps)
        self._empty()
        if self.model.device.type == "cuda":
            # what is cached for the larger shapes may be too fragmented for the smaller ones
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
    """The key by which rows wait."""
    return row.num_steps


def _float32(array: NDArray[np.floating], device: torch.device) -> Tensor:
    """An array on the device, rounded to float32."""
    rounded = array.astype(np.float32)
    return torch.from_numpy(rounded).to(device)
