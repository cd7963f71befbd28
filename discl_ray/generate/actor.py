"""The generator's Ray actor: one engine, loaded once; a shard of PLAN in, the same rows with images out.

A source that cannot be decoded becomes rows with a reason; the rest of the shard goes on.
"""

from __future__ import annotations

import pyarrow as pa
import torch

from discl_ray.core.images import encode_image
from discl_ray.core.schema import MADE
from discl_ray.core.shards import pack, unpack
from discl_ray.core.sources import Sources, read_sources
from discl_ray.core.storage import Store
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.diffusion import StableDiffusion
from discl_ray.generate.engine import Engine, Row
from discl_ray.generate.folder import find_model
from discl_ray.generate.samplers import SAMPLERS


def build_engine(config: GeneratorConfig, num_steps: int) -> Engine:
    """The configured engine on this process's device."""
    torch.set_num_threads(config.threads)
    device = torch.device("cuda" if config.num_gpus and torch.cuda.is_available() else "cpu")
    folder = find_model(config.model, config.revision)
    model = StableDiffusion(folder, dtype=getattr(torch, config.dtype), device=device)
    table = SAMPLERS[config.sampler](model.scheduler, num_steps)
    return Engine(model, table, cfg_scale=config.cfg_scale, micro_batch=config.micro_batch, decode_batch=config.decode_batch)


class GenerateActor:
    """PLAN rows in, the same rows with the columns MADE out."""

    def __init__(self, config: GeneratorConfig, num_steps: int, run: Store) -> None:
        self.config, self.run, self.engine = config, run, build_engine(config, num_steps)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A packed shard with images, in the plan's order."""
        shard_id, plan = unpack(batch)
        sources, broken = read_sources(self.run, plan["sample_id"].unique())
        images = {made.gid: encode_image(made.pixels, self.config.codec) for made in self.engine.run(_rows(plan, sources))}
        made_rows = [
            {
                "image": {"bytes": images.get(gid), "path": None},
                "status": "ok" if gid in images else "error",
                "error": broken.get(sample_id),
                "generator": self.config.model,
                "revision": self.config.revision,
                "dtype": self.config.dtype,
                "micro_batch": self.config.micro_batch,
            }
            for gid, sample_id in zip(plan["gid"].to_pylist(), plan["sample_id"].to_pylist(), strict=True)
        ]
        made = pa.Table.from_pylist(made_rows, schema=MADE)
        for name in MADE.names:
            plan = plan.append_column(MADE.field(name), made[name])
        return pack(shard_id, plan)


def _rows(plan: pa.Table, sources: Sources) -> list[Row]:
    names = ("gid", "prompt", "negative_prompt", "seed", "num_steps")
    return [
        Row(source_id=row["sample_id"], source=sources[row["sample_id"]], **{name: row[name] for name in names})
        for row in plan.to_pylist()
        if row["sample_id"] in sources
    ]
