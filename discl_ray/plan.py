"""Hard samples x λ x replicas -> PLAN: every image to make, with its id, its seed and its shard.

The plan is cut once, source by source, into shards of about equal work (UNet steps, not rows). What is in a shard never
changes afterwards: a rerun takes whole uncommitted shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from discl_ray.core.ids import stable_id, stable_seed
from discl_ray.core.lam import check_grid, lam_to_pct, num_denoising_steps
from discl_ray.core.schema import BROKEN, PLAN
from discl_ray.core.settings import Settings
from discl_ray.prompts import Prompts


class PlanConfig(Settings):
    """The grid."""

    replicas: int = Field(default=8, ge=1)
    """Images per hard training sample and level."""
    probe_replicas: int = Field(default=1, ge=1)
    """Images per probe source and level."""
    num_steps: int = Field(default=30, ge=1, le=1000)
    """T, the steps of the full schedule; a level takes T * (100 - λ%) // 100 of them."""
    lams: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5)
    """Levels to generate, in [0, 1); the real image (λ = 1) is always there. Default: the paper's for long tails."""
    attempts: int = Field(default=1, ge=1, le=20)
    """Tries at one image: what falls short of `until_text_sim` is made again from other noise, at most this often in all."""
    until_text_sim: float | None = Field(default=None, ge=-1, le=1, validate_default=True)
    """text_sim above which an image is not tried again (the reference: 6 attempts, 0.30 of OpenAI's ViT-B/32)."""
    shard_steps: int = Field(default=1500, ge=1)
    """UNet steps per shard, the unit of commit and resume: aim at 10 to 90 seconds of work."""

    @field_validator("lams")
    @classmethod
    def _grid(cls, lams: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        # runs even if another field is wrong, so that every problem is in one report
        if problems := check_grid(lams, info.data.get("num_steps", 1000)):
            raise ValueError("; ".join(problems))
        return lams

    @field_validator("until_text_sim")
    @classmethod
    def _attempts_end(cls, until: float | None, info: ValidationInfo) -> float | None:
        if until is None and info.data.get("attempts", 1) > 1:
            raise ValueError(f"attempts = {info.data['attempts']} needs a text_sim to reach, e.g. until_text_sim=0.3")
        return until

    @property
    def levels(self) -> tuple[int, ...]:
        """The grid in ascending integer percents."""
        return tuple(sorted(lam_to_pct(lam) for lam in self.lams))


def make_plan(hard: pa.Table, config: PlanConfig, prompts: Prompts, *, fingerprint: str, base_seed: int) -> pa.Table:
    """The PLAN for a table of hard samples (SAMPLES rows: train sources and val sources for probes).

    seed = H(base_seed, sample, source bytes, replica, attempt): all λ of a replica start from the same noise.
    gid = H(sample, source bytes, prompts, λ, seed, steps, generator fingerprint), so equal ids mean equal images.

    Raises ValueError if a test row is among the sources.
    """
    rows: list[dict[str, object]] = []
    columns = ("sample_id", "label", "class_name", "split", "sha256")
    for source in hard.select(columns).to_pylist():
        if source["split"] not in ("train", "val"):
            raise ValueError(f"sample {source['sample_id']} is of split {source['split']}: nothing is made from it")
        probe = source["split"] == "val"
        for replica in range(config.probe_replicas if probe else config.replicas):
            seed = stable_seed(base_seed, source["sample_id"], source["sha256"], replica, 0)
            texts = {
                "prompt": prompts.generation(source["class_name"], replica),
                "negative_prompt": prompts.config.negative,
                "filter_prompt": prompts.filter(source["class_name"]),
            }
            for lam_pct in config.levels:
                steps = num_denoising_steps(lam_pct, config.num_steps)
                rows.append(
                    {
                        **texts,
                        "sample_id": source["sample_id"],
                        "label": source["label"],
                        "role": "probe" if probe else "train",
                        "lam_pct": lam_pct,
                        "replica": replica,
                        "attempt": 0,
                        "seed": seed,
                        "num_steps": steps,
                        "source_sha256": source["sha256"],
                    }
                )
    return _plan(rows, config, fingerprint)


def next_attempt(made: pa.Table, config: PlanConfig, *, fingerprint: str, base_seed: int) -> pa.Table:
    """The PLAN of the next try at what failed: SPECTRUM rows of one round whose text_sim is too low, or whose image broke.

    Everything stays but the attempt and, with it, the seed. Rows whose source is at fault are not tried again.
    """
    again: list[dict[str, object]] = []
    for row in made.select([*PLAN.names, "status", "error", "text_sim"]).to_pylist():
        low = row["status"] == "ok" and np.float32(row["text_sim"]) <= np.float32(config.until_text_sim)  # as it is stored
        if low or row["error"] == BROKEN:
            attempt = row["attempt"] + 1
            seed = stable_seed(base_seed, row["sample_id"], row["source_sha256"], row["replica"], attempt)
            again.append({**{name: row[name] for name in PLAN.names}, "attempt": attempt, "seed": seed})
    return _plan(again, config, fingerprint)


def _plan(rows: list[dict[str, object]], config: PlanConfig, fingerprint: str) -> pa.Table:
    """PLAN of rows that lack their ids."""
    names = ("sample_id", "source_sha256", "prompt", "negative_prompt", "filter_prompt", "lam_pct", "seed", "num_steps")
    named = [{**row, "gid": stable_id(*(row[name] for name in names), fingerprint)} for row in rows]
    return pa.Table.from_pylist(_cut(named, config.shard_steps), schema=PLAN)


def _cut(rows: list[dict[str, object]], shard_steps: int) -> list[dict[str, object]]:
    """Adds `shard_id`: rows, which lie source by source, fill a shard until it holds `shard_steps` steps."""
    shards: list[list[dict[str, object]]] = []
    load = shard_steps
    for row in rows:
        if load >= shard_steps:
            shards.append([])
            load = 0
        shards[-1].append(row)
        load += cast(int, row["num_steps"])
    return [{**row, "shard_id": stable_id(*(r["gid"] for r in shard))[:16]} for shard in shards for row in shard]


@dataclass(frozen=True, kw_only=True)
class PlanSize:
    """What a plan amounts to."""

    rows: int
    sources: int
    shards: int
    unet_steps: int

    @classmethod
    def of(cls, plan: pa.Table) -> PlanSize:
        """Counts of a PLAN table."""
        return cls(
            rows=plan.num_rows,
            sources=len(set(plan["sample_id"].to_pylist())),
            shards=len(set(plan["shard_id"].to_pylist())),
            unet_steps=sum(plan["num_steps"].to_pylist()),
        )
