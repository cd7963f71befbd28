"""The generator's Ray actor: one engine, loaded once; a shard in, its rows of PLAN with images out.

Several shards may be in progress at once on the one engine. Rows whose source cannot be decoded,
and rows that repeatedly kill their process, get a reason instead of an image.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from discl_ray.cluster.demand import FALLBACK
from discl_ray.cluster.heartbeat import GeneratorSigns, report_loading
from discl_ray.core.images import encode_image
from discl_ray.core.schema import MADE
from discl_ray.core.shards import Shard, Slice, pack
from discl_ray.core.sources import read_sources
from discl_ray.core.storage import Store
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.crash_journal import NO_JOB, CrashJournal, Origin
from discl_ray.generate.diffusion import load_model
from discl_ray.generate.engine import Engine
from discl_ray.generate.model_folder import find_model
from discl_ray.generate.resize import Box, Pixels, fit_image
from discl_ray.generate.rows import Made, Row
from discl_ray.generate.samplers import SAMPLERS
from discl_ray.models.device import CPU_ONLY, check_bf16, device_of
from discl_ray.spectrum.reuse import Image, Reuse

REPORT_EVERY_S = 1.0

ROW_COLUMNS = ("gid", "prompt", "negative_prompt", "seed", "num_steps")
"""PLAN columns an engine's Row takes as they are."""


def build_engine(config: GeneratorConfig, num_steps: int) -> Engine:
    """The configured engine on this process's device."""
    torch.set_num_threads(config.threads)
    name = device_of(config.on_gpu, CPU_ONLY)
    device = torch.device(name)
    if device.type == "cuda":
        _check_dtypes(config)
    folder = find_model(config.model, config.revision, config.variant)
    model = load_model(folder, config, device)
    table = SAMPLERS[config.sampler](model.scheduler, num_steps)
    return Engine(
        model,
        table,
        cfg_scale=config.cfg_scale,
        micro_batch=config.micro_batch,
        decode_batch=config.decode_batch,
    )


def _check_dtypes(config: GeneratorConfig) -> None:
    """Raises ModelError if bfloat16 is configured and this GPU does not support it."""
    remedies: list[str] = []
    for name, fallback in FALLBACK.items():
        if getattr(config, name) == "bfloat16":
            remedies.append(f"generator.{name}={fallback}")
    if remedies:
        check_bf16(" ".join(remedies))


def peak_memory(device: torch.device) -> int:
    """Most bytes torch allocated on a GPU; on the CPU the process's largest resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource  # Unix only

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def vital_signs(engine: Engine) -> GeneratorSigns:
    """What the engine is doing and has done, for the driver."""
    return GeneratorSigns(
        phase=engine.phase,
        images=engine.images,
        total_rows=engine.total_rows,
        steps=engine.steps,
        seconds=engine.seconds,
        micro_batch=engine.micro_batch,
        peak_bytes=peak_memory(engine.model.device),
    )


@dataclass
class _Results:
    """What became of a shard's rows, by gid."""

    images: dict[str, bytes] = field(default_factory=dict)
    """Encoded."""
    micro_batches: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a row has no image."""
    encoding: dict[str, Future[bytes]] = field(default_factory=dict)

    def add_reused(self, reused: Mapping[str, Image]) -> None:
        """Takes images over that another run has made."""
        for gid, image in reused.items():
            self.images[gid] = image.data
            self.micro_batches[gid] = image.micro_batch

    def wait(self) -> None:
        """Waits until every image is encoded."""
        for gid, future in self.encoding.items():
            self.images[gid] = future.result()


class GenerateActor:
    """A shard in, its rows of PLAN with the columns MADE out."""

    def __init__(
        self,
        config: GeneratorConfig,
        num_steps: int,
        run: Store,
        origin: Origin = NO_JOB,
        heartbeat: Any = None,
    ) -> None:
        self.config = config
        self.run = run
        self.num_steps = num_steps
        self.origin = origin
        self.name = f"generator {os.getpid()} on {socket.gethostname()}"
        self._queue = threading.Lock()
        self._permits = threading.Semaphore(config.shards_in_flight)
        self._encoders = ThreadPoolExecutor(max_workers=2, thread_name_prefix="encode")
        self._reuse = Reuse.open(run)
        with report_loading(heartbeat, self.name):
            self.engine = build_engine(config, num_steps)
        if heartbeat is not None:
            threading.Thread(target=self._report, args=(heartbeat,), daemon=True).start()

    def _report(self, heartbeat: Any) -> None:
        """Reports to the driver for as long as the process lives."""
        while True:
            heartbeat.report.remote(self.name, vital_signs(self.engine))
            time.sleep(REPORT_EVERY_S)

    @contextmanager
    def _permit(self, *, alone: bool) -> Iterator[None]:
        """Holds one permit, or all of them for a shard that has to be alone in its process."""
        count = self.config.shards_in_flight if alone else 1
        # in a queue: two shards that each hold some of the permits would wait for each other
        with self._queue:
            for _ in range(count):
                self._permits.acquire()
        try:
            yield
        finally:
            self._permits.release(count)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A shard's row with its images, in the plan's order."""
        shard = Shard.of(batch)
        plan = shard.plan.read(self.run)
        rows = {row["gid"]: row for row in plan.to_pylist()}
        journal = CrashJournal.open(self.run, shard.shard_id, list(rows), self.origin)
        results = _Results(reasons=dict.fromkeys(journal.crashed, "crashed"))
        results.add_reused(self._reuse.take(rows))
        with self._permit(alone=journal.has_suspects):
            for part in journal.parts(self.config.micro_batch):
                journal.begin(part)
                missing = [gid for gid in part if gid not in results.images]
                self._make([rows[gid] for gid in missing], shard.sources, results)
            results.wait()
            # last, because encoding can still end the process
            journal.close()
        made_rows = [self._made_row(gid, results, journal.crashed) for gid in rows]
        made = pa.Table.from_pylist(made_rows, schema=MADE)
        for name in MADE.names:
            plan = plan.append_column(MADE.field(name), made[name])
        return pack(batch, plan)

    def _make(
        self, rows: Sequence[Mapping[str, Any]], place: Slice | None, results: _Results
    ) -> None:
        """Makes the images of PLAN rows; those whose source cannot be used get a reason.

        `place` is where the shard's real images lie.
        """
        # each source once: many rows differ in λ and replica alone
        wanted = {row["sample_id"]: row["source_sha256"] for row in rows}
        sources, broken = read_sources(self.run, wanted, place)
        size = self.engine.model.size
        fitted: dict[str, tuple[Pixels, Box]] = {}
        for name, pixels in sources.items():
            fitted[name] = fit_image(pixels, size, self.config.fit)
        todo: list[Row] = []
        boxes: dict[str, Box] = {}
        for row in rows:
            sample_id = row["sample_id"]
            if sample_id in broken:
                results.reasons[row["gid"]] = broken[sample_id]
            if sample_id in fitted:
                source, boxes[row["gid"]] = fitted[sample_id]
                todo.append(self._engine_row(row, source))
        for made in self.engine.run(todo):
            self._take(made, boxes[made.gid], results)

    def _engine_row(self, row: Mapping[str, Any], source: Pixels) -> Row:
        """A PLAN row with its fitted source."""
        return Row(
            source_id=row["sample_id"],
            source=source,
            # all steps: λ = 0
            pure=self.config.text_only and row["num_steps"] == self.num_steps,
            **{name: row[name] for name in ROW_COLUMNS},
        )

    def _take(self, made: Made, box: Box, results: _Results) -> None:
        """Encodes an image in the background, so that the engine does not wait for it."""
        results.micro_batches[made.gid] = made.micro_batch
        if made.pixels is None:
            results.reasons[made.gid] = made.error or "error"
            return
        pixels = box.cut(made.pixels)
        codec = self.config.codec
        quality = self.config.quality
        encoding = self._encoders.submit(encode_image, pixels, codec, quality)
        results.encoding[made.gid] = encoding

    def _made_row(self, gid: str, results: _Results, crashed: Collection[str]) -> dict[str, Any]:
        """The columns MADE of a row."""
        image = results.images.get(gid)
        failed = "crashed" if gid in crashed else "error"
        return {
            "image": {"bytes": image, "path": None},
            "status": failed if image is None else "ok",
            "error": results.reasons.get(gid),
            "generator": self.config.model,
            "revision": self.config.revision,
            "dtype": self.config.dtype,
            "micro_batch": results.micro_batches.get(gid, self.config.micro_batch),
        }
