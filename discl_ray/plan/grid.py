"""Hard samples x λ x replicas -> PLAN: every image to make, with its id, its seed and its shard.

The plan is cut once, source by source, into shards of about equal work (UNet steps, not rows). What
is in a shard never changes afterwards: a rerun takes whole uncommitted shards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from discl_ray.core.columns import is_in, negate
from discl_ray.core.ids import stable_id, stable_seed
from discl_ray.core.lam import num_denoising_steps
from discl_ray.core.schema import BROKEN, PLAN
from discl_ray.plan.config import PlanConfig
from discl_ray.plan.prompts import Prompts

PlanRow = dict[str, object]
"""PLAN's columns of one image."""

SOURCE_COLUMNS = ("sample_id", "label", "class_name", "split", "sha256")

GID_COLUMNS = (
    "sample_id",
    "source_sha256",
    "prompt",
    "negative_prompt",
    "filter_prompt",
    "lam_pct",
    "seed",
    "num_steps",
)
"""What decides an image besides the generator, in the order in which it is hashed."""


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
    rows: list[PlanRow] = []
    sources = hard.select(SOURCE_COLUMNS)
    for source in sources.to_pylist():
        split = source["split"]
        if split not in ("train", "val"):
            sample_id = source["sample_id"]
            raise ValueError(f"sample {sample_id} is of split {split}: nothing is made from it")
        replicas = config.probe_replicas if split == "val" else config.replicas
        for replica in range(replicas):
            rows += _replica(source, replica, config, prompts, base_seed)
    return _plan(rows, config, fingerprint)


def _replica(
    source: dict[str, Any], replica: int, config: PlanConfig, prompts: Prompts, base_seed: int
) -> Iterator[PlanRow]:
    """One replica of a source at every λ: the same noise and prompt."""
    sample_id = source["sample_id"]
    sha256 = source["sha256"]
    row = {
        "sample_id": sample_id,
        "label": source["label"],
        "role": "probe" if source["split"] == "val" else "train",
        "replica": replica,
        "attempt": 0,
        # the last number is the attempt
        "seed": stable_seed(base_seed, sample_id, sha256, replica, 0),
        "source_sha256": sha256,
        "prompt": prompts.generation(source["class_name"], replica),
        "negative_prompt": prompts.config.negative,
        "filter_prompt": prompts.filter(source["class_name"]),
    }
    for lam_pct in config.levels:
        steps = num_denoising_steps(lam_pct, config.num_steps)
        yield {**row, "lam_pct": lam_pct, "num_steps": steps}


def next_attempt(
    made: pa.Table, config: PlanConfig, *, fingerprint: str, base_seed: int
) -> pa.Table:
    """The PLAN of the next attempt: SPECTRUM rows of one round with a low text_sim or a bad image.

    Only the attempt changes and, with it, the seed. Rows whose source cannot be read are left out.
    """
    limit = np.float32(config.until_text_sim)  # scores are stored in float32
    again: list[PlanRow] = []
    rows = made.select([*PLAN.names, "status", "error", "text_sim"])
    for row in rows.to_pylist():
        scored = row["status"] == "ok"
        low = scored and np.float32(row["text_sim"]) <= limit
        if not low and row["error"] != BROKEN:
            continue
        attempt = row["attempt"] + 1
        identity = (row["sample_id"], row["source_sha256"], row["replica"])
        planned = {name: row[name] for name in PLAN.names}
        planned["attempt"] = attempt
        planned["seed"] = stable_seed(base_seed, *identity, attempt)
        again.append(planned)
    return _plan(again, config, fingerprint)


def _plan(rows: Iterable[PlanRow], config: PlanConfig, fingerprint: str) -> pa.Table:
    """PLAN of rows that lack their ids."""
    named: list[PlanRow] = []
    for row in rows:
        identity = [row[name] for name in GID_COLUMNS]
        gid = stable_id(*identity, fingerprint)
        named.append({**row, "gid": gid})
    planned = _with_shards(named, config.shard_steps)
    return pa.Table.from_pylist(planned, schema=PLAN)


def _with_shards(rows: Iterable[PlanRow], shard_steps: int) -> list[PlanRow]:
    """Adds `shard_id`: rows, ordered by source, fill a shard until it has `shard_steps` steps."""
    shards: list[list[PlanRow]] = []
    load = shard_steps  # full: the first row opens a shard
    for row in rows:
        if load >= shard_steps:
            shards.append([])
            load = 0
        shards[-1].append(row)
        load += cast(int, row["num_steps"])
    named: list[PlanRow] = []
    for shard in shards:
        gids = [row["gid"] for row in shard]
        shard_id = stable_id(*gids)[:16]
        named += [{**row, "shard_id": shard_id} for row in shard]
    return named


@dataclass(frozen=True, kw_only=True)
class PlanSize:
    """How much a plan makes."""

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
    inside = is_in(plan["shard_id"], sorted(shards))
    return plan.filter(negate(inside))
