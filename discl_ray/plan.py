"""Hard samples x λ x replicas -> PLAN: every image to make, with its id, its seed and its shard.

The plan is cut once, source by source, into shards of about equal work (UNet steps, not rows). What is in a shard never
changes afterwards: a rerun takes whole uncommitted shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from discl_ray.core.ids import stable_id, stable_seed
from discl_ray.core.lam import check_grid, lam_to_pct, num_denoising_steps
from discl_ray.core.schema import PLAN
from discl_ray.core.settings import Settings
from discl_ray.prompts import PromptConfig, filter_prompt, generation_prompt


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
    shard_steps: int = Field(default=1500, ge=1)
    """UNet steps per shard, the unit of commit and resume: aim at 10 to 90 seconds of work."""

    @field_validator("lams")
    @classmethod
    def _grid(cls, lams: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        # runs even if another field is wrong, so that every problem is in one report
        if problems := check_grid(lams, info.data.get("num_steps", 1000)):
            raise ValueError("; ".join(problems))
        return lams

    @property
    def levels(self) -> tuple[int, ...]:
        """The grid in ascending integer percents."""
        return tuple(sorted(lam_to_pct(lam) for lam in self.lams))


def make_plan(hard: pa.Table, config: PlanConfig, prompts: PromptConfig, *, fingerprint: str, base_seed: int) -> pa.Table:
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
                "prompt": generation_prompt(prompts, source["class_name"], replica),
                "negative_prompt": prompts.negative,
                "filter_prompt": filter_prompt(prompts, source["class_name"]),
            }
            for lam_pct in config.levels:
                steps = num_denoising_steps(lam_pct, config.num_steps)
                key = (source["sample_id"], source["sha256"], *texts.values(), lam_pct, seed, steps, fingerprint)
                rows.append(
                    {
                        **texts,
                        "gid": stable_id(*key),
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
    return pa.Table.from_pylist(_cut(rows, config.shard_steps), schema=PLAN)


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
