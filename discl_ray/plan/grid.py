# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""Hard samples x λ x replicas -> PLAN: every image to make, with its id, its seed and its shard.

The plan is cut once, source by source, into shards of about equal work (UNet steps, not rows). What
is in a shard never changes afterwards: a rerun takes whole uncommitted shards.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.core.ids import stable_id, stable_seed
from discl_ray.core.lam import num_denoising_steps
from discl_ray.core.schema import BROKEN, PLAN
from discl_ray.plan.config import PlanConfig
from discl_ray.plan.prompts import Prompts


def make_plan(
    hard: pa.Table, config: PlanConfig, prompts: Prompts, *, fingerprint: str, base_seed: int
) -> pa.Table:
    """The PLAN for a table of hard samples (SAMPLES rows: train sources and val sources for
    probes).

    seed = H(base_seed, sample, source bytes, replica, attempt): all λ of a replica start from the
    same noise. gid = H(sample, source bytes, prompts, λ, seed, steps, generator fingerprint), so
    equal ids mean equal images.

    Raises ValueError if a test row is among the sources.
    """
    rows: list[dict[str, object]] = []
    columns = ("sample_id", "label", "class_name", "split", "sha256")
    for source in hard.select(columns).to_pylist():
        if source["split"] not in ("train", "val"):
            raise ValueError(
                f"sample {source['sample_id']} is of split {source['split']}: nothing is made "
                "from it"
            )
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


def next_attempt(
    made: pa.Table, config: PlanConfig, *, fingerprint: str, base_seed: int
) -> pa.Table:
    """The PLAN of the next try at what failed: SPECTRUM rows of one round whose text_sim is too
    low, or whose image broke.

    Everything stays but the attempt and, with it, the seed. Rows whose source is at fault are not
    tried again.
    """
    again: list[dict[str, object]] = []
    for row in made.select([*PLAN.names, "status", "error", "text_sim"]).to_pylist():
        low = row["status"] == "ok" and np.float32(row["text_sim"]) <= np.float32(
            config.until_text_sim
        )  # as it is stored
        if low or row["error"] == BROKEN:
            attempt = row["attempt"] + 1
            seed = stable_seed(
                base_seed, row["sample_id"], row["source_sha256"], row["replica"], attempt
            )
            again.append(
                {**{name: row[name] for name in PLAN.names}, "attempt": attempt, "seed": seed}
            )
    return _plan(again, config, fingerprint)


def _plan(rows: list[dict[str, object]], config: PlanConfig, fingerprint: str) -> pa.Table:
    """PLAN of rows that lack their ids."""
    names = (
        "sample_id",
        "source_sha256",
        "prompt",
        "negative_prompt",
        "filter_prompt",
        "lam_pct",
        "seed",
        "num_steps",
    )
    named = [{**row, "gid": stable_id(*(row[name] for name in names), fingerprint)} for row in rows]
    return pa.Table.from_pylist(_cut(named, config.shard_steps), schema=PLAN)


def _cut(rows: list[dict[str, object]], shard_steps: int) -> list[dict[str, object]]:
    """Adds `shard_id`: rows, which lie source by source, fill a shard until it holds `shard_steps`
    steps."""
    shards: list[list[dict[str, object]]] = []
    load = shard_steps
    for row in rows:
        if load >= shard_steps:
            shards.append([])
            load = 0
        shards[-1].append(row)
        load += cast(int, row["num_steps"])
    return [
        {**row, "shard_id": stable_id(*(r["gid"] for r in shard))[:16]}
        for shard in shards
        for row in shard
    ]


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


def without_shards(plan: pa.Table, shards: Collection[str]) -> pa.Table:
    """The rows of a plan that are in none of these shards."""
    return plan.filter(pc.invert(pc.is_in(plan["shard_id"], pa.array(sorted(shards), pa.string()))))
