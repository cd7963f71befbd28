# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""A run of phase 1 in words: what is planned, what is worth knowing before, what was made and kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.cluster.demand import Demand
from discl_ray.config import Config
from discl_ray.core.lam import pct_to_lam
from discl_ray.generate.model_folder import (
    cut_prompts,
    find_model,
    native_side,
    scheduler_notes,
    working_size,
)
from discl_ray.plan.grid import PlanSize, without_shards
from discl_ray.score.model_folder import scorer_warnings
from discl_ray.spectrum.commit import committed_ids
from discl_ray.spectrum.read import count_verdicts, open_spectrum
from discl_ray.synthesize.layout import Prepared
from discl_ray.synthesize.rates import rate_key, read_rates


def describe(prepared: Prepared, config: Config, hands: Demand | None = None) -> str:
    """The plan in words: rows by role, and of what is not made yet the steps and the time with so many generators; disk."""
    size = PlanSize.of(prepared.plan)
    generator = config.generator
    height, width = working_size(
        generator, find_model(generator.model, generator.revision, generator.variant)
    )
    megabytes = (
        size.rows * height * width * 3 / 1e6
    )  # an upper bound: margins are cut off, and pixels are compressed
    levels = ", ".join(f"{pct_to_lam(p):g}" for p in config.plan.levels)
    return (
        f"  {size.rows} images of {size.sources} real ones at λ = {levels} in {size.shards} shards: {_roles(prepared.plan)}\n"
        f"  {_work(prepared, config, hands)} · at most {megabytes:.1f} MB of pixels on disk"
    )


def warnings(prepared: Prepared, config: Config) -> list[str]:
    """What is allowed but worth knowing before a long job, in sentences."""
    folder = find_model(config.generator.model, config.generator.revision, config.generator.variant)
    side = native_side(folder) or min(working_size(config.generator, folder))
    shorter = [
        min(w, h)
        for w, h in zip(*(prepared.hard[c].to_pylist() for c in ("width", "height")), strict=True)
    ]
    found = [*scheduler_notes(config.generator, folder), *scorer_warnings(config.scorer)]
    if small := sum(s < side / 2 for s in shorter):
        found.append(
            f"{small} of {len(shorter)} sources are smaller than half the generator's native side of {side} pixels"
        )
    return [*found, *_long_prompts(prepared, folder)]


def summarize(prepared: Prepared, config: Config) -> str:
    """Made, kept and rejected by λ of what may be trained on, and the number of probes, from what is committed."""
    spectrum = open_spectrum(prepared.store, config.filter, columns=[])
    trains, probes = (
        count_verdicts(spectrum.filter(pc.equal(spectrum["role"], role)))
        for role in ("train", "probe")
    )
    lines = [
        "  images to train on; probes only measure progress, are not filtered and never trained on",
        f"  {'λ':>4} {'made':>6} {'kept':>6} {'kept %':>7} {'probes':>7}  rejected",
    ]
    for lam_pct in sorted({*trains, *probes}):
        count, beside = trains.get(lam_pct, Counter()), probes.get(lam_pct, Counter())
        made, kept = count.total(), count["kept"]
        share = f"{100 * kept / made:.1f}%" if made else "–"
        rejected = (
            ", ".join(f"{reason} {n}" for reason, n in sorted(count.items()) if reason != "kept")
            or "–"
        )
        lines.append(
            f"  {pct_to_lam(lam_pct):>4g} {made:>6} {kept:>6} {share:>7} {beside.total():>7}  {rejected}"
        )
    return "\n".join(lines)


NAMED = 3
"""Prompts that are too long which a warning names."""


BEGINNING = 60
"""Characters of each that it shows."""


def _roles(plan: pa.Table) -> str:
    """What a plan's images are for, and of how many real ones they are made."""
    trains, probes = (
        PlanSize.of(plan.filter(pc.equal(plan["role"], role))) for role in ("train", "probe")
    )
    words = f"{trains.rows} of {trains.sources} train images to train on"
    return (
        f"{words}, {probes.rows} of {probes.sources} val images as probes"
        if probes.rows
        else f"{words}, no probes"
    )


def _work(prepared: Prepared, config: Config, hands: Demand | None) -> str:
    """What of a plan is left to make, and how long that takes."""
    size = PlanSize.of(prepared.plan)
    left = PlanSize.of(without_shards(prepared.plan, committed_ids(prepared.store)))
    steps = f"{size.unet_steps} guided UNet steps"
    if not left.rows:
        return f"{steps} · all of them are made"
    if left.rows < size.rows:
        steps = f"{steps}, {left.unet_steps} of them left"
    rate = read_rates(config).get(rate_key(prepared, config, hands)) if hands else None
    if rate:
        return f"{steps} · about {left.unet_steps / rate:.0f} s at {rate:.0f} steps/s, measured here before with these settings"
    return f"{steps} · time: the first shard will tell (not measured here yet with these settings)"


def _long_prompts(prepared: Prepared, folder: Path) -> list[str]:
    """Which prompts the generator's tokenizer cuts, in a sentence; none if it cuts none."""
    of_class: dict[str, str] = {}
    for row in (
        prepared.plan.group_by(["prompt", "label"], use_threads=False).aggregate([]).to_pylist()
    ):
        of_class.setdefault(row["prompt"], f"class '{prepared.samples.classes[row['label']]}'")
    for negative in prepared.plan["negative_prompt"].unique().to_pylist():
        of_class.setdefault(negative, "prompts.negative")
    long, limit = cut_prompts(folder, of_class)
    if not long:
        return []
    several = len(long) > 1
    count = f"{len(long)} prompts are" if several else "1 prompt is"
    named = "; ".join(f"{of_class[text]}, '{_beginning(text)}'" for text in long[:NAMED])
    more = f"; and {len(long) - NAMED} more" if len(long) > NAMED else ""
    rest = "the rest of each" if several else "its rest"
    return [
        f"{count} longer than the {limit} tokens the generator takes, and {rest} is ignored: {named}{more}"
    ]


def _beginning(text: str) -> str:
    return text if len(text) <= BEGINNING else f"{text[:BEGINNING]}…"
