"""The generator's Ray actor: one engine, loaded once; a shard of PLAN in, the same rows with images out.

Several shards may be underway at once, on the one engine. A source that cannot be decoded becomes rows with a reason, a row that
kills its process too, in the end; the rest of the shard goes on.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import torch

from discl_ray.cluster.demand import FALLBACK
from discl_ray.cluster.heartbeat import GeneratorSigns, report_loading
from discl_ray.core.images import encode_image
from discl_ray.core.schema import MADE
from discl_ray.core.shards import pack, unpack
from discl_ray.core.sources import read_sources
from discl_ray.core.storage import Store
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.diffusion import load_model
from discl_ray.generate.engine import Engine, Made, Row
from discl_ray.generate.journal import ALONE, Journal, Life
from discl_ray.generate.model_folder import find_model
from discl_ray.generate.resize import Box, fit_image
from discl_ray.generate.samplers import SAMPLERS
from discl_ray.models.device import CPU_ONLY, check_bf16, device_of
from discl_ray.spectrum.reuse import Reuse

PULSE_S = 1.0


def build_engine(config: GeneratorConfig, num_steps: int) -> Engine:
    """The configured engine on this process's device."""
    torch.set_num_threads(config.threads)
    device = torch.device(device_of(config.on_gpu, CPU_ONLY))
    asked = {name: to for name, to in FALLBACK.items() if getattr(config, name) == "bfloat16"}
    if device.type == "cuda" and asked:
        check_bf16(" ".join(f"generator.{name}={to}" for name, to in asked.items()))
    model = load_model(find_model(config.model, config.revision, config.variant), config, device)
    table = SAMPLERS[config.sampler](model.scheduler, num_steps)
    return Engine(
        model,
        table,
        cfg_scale=config.cfg_scale,
        micro_batch=config.micro_batch,
        decode_batch=config.decode_batch,
    )


def vital_signs(engine: Engine) -> GeneratorSigns:
    """What the engine is at and what it has done, for the driver."""
    if engine.model.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )
    return GeneratorSigns(
        phase=engine.phase,
        images=engine.images,
        total_rows=engine.total_rows,
        steps=engine.steps,
        seconds=engine.seconds,
        micro_batch=engine.micro_batch,
        peak_bytes=peak,
    )


class GenerateActor:
    """PLAN rows in, the same rows with the columns MADE out."""

    def __init__(
        self,
        config: GeneratorConfig,
        num_steps: int,
        run: Store,
        life: Life = ALONE,
        heartbeat: Any = None,
    ) -> None:
        self.config, self.run, self.num_steps, self.life = config, run, num_steps, life
        self.name = f"generator {os.getpid()} on {socket.gethostname()}"
        self._turn, self._room = threading.Lock(), threading.Semaphore(config.shards_in_flight)
        self._encoders = ThreadPoolExecutor(max_workers=2, thread_name_prefix="encode")
        self._reuse = Reuse.open(run)
        with report_loading(heartbeat, self.name):
            self.engine = build_engine(config, num_steps)
        if heartbeat is not None:
            threading.Thread(target=self._beat, args=(heartbeat,), daemon=True).start()

    def _beat(self, heartbeat: Any) -> None:
        while True:
            heartbeat.report.remote(self.name, vital_signs(self.engine))
            time.sleep(PULSE_S)

    @contextmanager
    def _permit(self, *, alone: bool) -> Iterator[None]:
        """Room for one shard among others, or the whole process for one."""
        permits = self.config.shards_in_flight if alone else 1
        with self._turn:
            for _ in range(permits):
                self._room.acquire()
        try:
            yield
        finally:
            self._room.release(permits)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A packed shard with images, in the plan's order."""
        shard_id, plan = unpack(batch)
        journal = Journal.open(self.run, shard_id, plan["gid"].to_pylist(), self.life)
        images: dict[str, Future[bytes]] = {}
        batches: dict[str, int] = {}
        reasons = dict.fromkeys(journal.crashed, "crashed")
        rows = {row["gid"]: row for row in plan.to_pylist()}
        reused = self._reuse.take(rows)
        batches.update((gid, image.micro_batch) for gid, image in reused.items())
        with self._permit(alone=journal.suspicious):
            for part in journal.parts(self.config.micro_batch):
                journal.enter(part)
                for made, box in self._make(
                    [rows[gid] for gid in part if gid not in reused], reasons
                ):
                    batches[made.gid] = made.micro_batch
                    if made.pixels is None:
                        reasons[made.gid] = made.error or "error"
                    else:
                        pixels = box.cut(made.pixels)
                        images[made.gid] = self._encoders.submit(
                            encode_image, pixels, self.config.codec, self.config.quality
                        )
            encoded = {gid: image.data for gid, image in reused.items()}
            encoded.update((gid, future.result()) for gid, future in images.items())
            journal.close()
        made_rows = [
            {
                "image": {"bytes": encoded.get(gid), "path": None},
                "status": "ok"
                if gid in encoded
                else "crashed"
                if gid in journal.crashed
                else "error",
                "error": reasons.get(gid),
                "generator": self.config.model,
                "revision": self.config.revision,
                "dtype": self.config.dtype,
                "micro_batch": batches.get(gid, self.config.micro_batch),
            }
            for gid in rows
        ]
        made_table = pa.Table.from_pylist(made_rows, schema=MADE)
        for name in MADE.names:
            plan = plan.append_column(MADE.field(name), made_table[name])
        return pack(shard_id, plan)

    def _make(
        self, rows: list[dict[str, Any]], reasons: dict[str, str]
    ) -> Iterator[tuple[Made, Box]]:
        """Images of PLAN rows, with the box to cut from each; rows without a source get a reason instead."""
        sources, broken = read_sources(
            self.run, pa.array(sorted({row["sample_id"] for row in rows}), pa.string())
        )
        reasons.update(
            {row["gid"]: broken[row["sample_id"]] for row in rows if row["sample_id"] in broken}
        )
        fitted = {
            name: fit_image(pixels, self.engine.model.size, self.config.fit)
            for name, pixels in sources.items()
        }
        boxes: dict[str, Box] = {}
        todo: list[Row] = []
        for row in rows:
            if row["sample_id"] not in fitted:
                continue
            source, boxes[row["gid"]] = fitted[row["sample_id"]]
            names = ("gid", "prompt", "negative_prompt", "seed", "num_steps")
            pure = self.config.text_only and row["num_steps"] == self.num_steps
            todo.append(
                Row(
                    source_id=row["sample_id"],
                    source=source,
                    pure=pure,
                    **{name: row[name] for name in names},
                )
            )
        for made in self.engine.run(todo):
            yield made, boxes[made.gid]
