"""A run of phase 1 in words: the plan, warnings before it starts, what was made and kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from discl_ray.cluster.demand import Demand
from discl_ray.config import Config
from discl_ray.core.columns import counts, rows_where
from discl_ray.core.lam import pct_to_lam
from discl_ray.generate.model_checks import cut_prompts
from discl_ray.generate.model_folder import find_model
from discl_ray.generate.model_settings import native_side, scheduler_notes, working_size
from discl_ray.score.model_folder import scorer_warnings
from discl_ray.spectrum.read import count_verdicts
from discl_ray.spectrum.records import committed_ids
from discl_ray.synthesize.planned import Planned, read_planned
from discl_ray.synthesize.rates import rate_key, read_rates
from discl_ray.synthesize.run import Run

NAMED = 3
"""Prompts that are too long which a warning names."""
BEGINNING = 60
"""Characters of each that it shows."""


def describe(run: Run, demand: Demand | None = None) -> str:
    """The plan in words: images by role, disk; of what is not made yet, steps and estimated time.

    Without `demand`, the number of generators, no time is estimated.
    """
    planned = read_planned(run.store)
    height, width = working_size(run.config.generator, _model_folder(run.config))
    # An upper bound: margins are cut off, and pixels are compressed.
    megabytes = planned.rows * height * width * 3 / 1e6
    levels = ", ".join(f"{pct_to_lam(p):g}" for p in run.config.plan.levels)
    images = f"{planned.rows} images of {planned.sources} real ones at λ = {levels}"
    return (
        f"  {images} in {planned.shards.num_rows} shards: {_roles(run, planned)}\n"
        f"  {_work(run, planned, demand)} · at most {megabytes:.1f} MB of pixels on disk"
    )


def warnings(run: Run) -> list[str]:
    """What is allowed but worth knowing before a long job, in sentences."""
    config = run.config
    folder = _model_folder(config)
    found = [*scheduler_notes(config.generator, folder), *scorer_warnings(config.scorer)]
    side = native_side(folder) or min(working_size(config.generator, folder))
    shorter = np.minimum(run.hard["width"].to_numpy(), run.hard["height"].to_numpy())
    small = int((shorter < side / 2).sum())
    if small:
        found.append(
            f"{small} of {len(shorter)} sources are smaller than half the generator's native side "
            f"of {side} pixels"
        )
    return [*found, *_long_prompts(run, folder)]


def summarize(spectrum: pa.Table) -> str:
    """A table of an opened spectrum by λ: made, kept and rejected to train on; number of probes."""
    rows = spectrum.select(["role", "lam_pct", "reason"])
    trains = count_verdicts(rows_where(rows, role="train"))
    probes = count_verdicts(rows_where(rows, role="probe"))
    lines = [
        "  images to train on; probes only measure progress, are not filtered and never trained on",
        "     λ   made   kept  kept %  probes  rejected",
    ]
    for lam_pct in sorted({*trains, *probes}):
        count = trains.get(lam_pct, Counter())
        lines.append(_verdicts_line(lam_pct, count, probes.get(lam_pct, Counter()).total()))
    return "\n".join(lines)


def _verdicts_line(lam_pct: int, count: Counter[str], probes: int) -> str:
    """A line of the table that `summarize` makes."""
    made, kept = count.total(), count["kept"]
    share = f"{100 * kept / made:.1f}%" if made else "–"
    reasons = [f"{reason} {n}" for reason, n in sorted(count.items()) if reason != "kept"]
    rejected = ", ".join(reasons) or "–"
    figures = f"{made:>6} {kept:>6} {share:>7} {probes:>7}"
    return f"  {pct_to_lam(lam_pct):>4g} {figures}  {rejected}"


def _model_folder(config: Config) -> Path:
    generator = config.generator
    return find_model(generator.model, generator.revision, generator.variant)


def _roles(run: Run, planned: Planned) -> str:
    """How many images a plan has for training and as probes, and of how many real ones."""
    splits = counts(run.hard["split"])
    trains = planned.rows - planned.probes
    words = f"{trains} of {splits['train']} train images to train on"
    if not planned.probes:
        return f"{words}, no probes"
    return f"{words}, {planned.probes} of {splits['val']} val images as probes"


def _work(run: Run, planned: Planned, demand: Demand | None) -> str:
    """What of a plan is left to make, and how long that takes."""
    left = planned.without(committed_ids(run.store))
    steps = f"{planned.unet_steps} guided UNet steps"
    if not left.rows:
        return f"{steps} · all of them are made"
    if left.rows < planned.rows:
        steps = f"{steps}, {left.unet_steps} of them left"
    rate = read_rates(run.config).get(rate_key(run, demand)) if demand else None
    if not rate:
        unknown = "not measured here yet with these settings"
        return f"{steps} · time: the first shard will tell ({unknown})"
    seconds = left.unet_steps / rate
    measured = f"at {rate:.0f} steps/s, measured here before with these settings"
    return f"{steps} · about {seconds:.0f} s {measured}"


def _long_prompts(run: Run, folder: Path) -> list[str]:
    """Which prompts the generator's tokenizer cuts, in a sentence; none if it cuts none."""
    used_by = _prompts_by_use(run)
    long, limit = cut_prompts(folder, used_by)
    if not long:
        return []
    several = len(long) > 1
    count = f"{len(long)} prompts are" if several else "1 prompt is"
    rest = "the rest of each" if several else "its rest"
    named = "; ".join(f"{used_by[text]}, '{_beginning(text)}'" for text in long[:NAMED])
    more = f"; and {len(long) - NAMED} more" if len(long) > NAMED else ""
    return [
        f"{count} longer than the {limit} tokens the generator takes, and {rest} is ignored: "
        f"{named}{more}"
    ]


def _prompts_by_use(run: Run) -> dict[str, str]:
    """Every prompt of a plan, with the first class or the key that it belongs to."""
    used_by: dict[str, str] = {}
    kinds = run.hard.group_by(["class_name", "split"], use_threads=False).aggregate([])
    for kind in kinds.to_pylist():
        for replica in range(run.grid.replicas(kind["split"])):
            prompt = run.prompts.generation(kind["class_name"], replica)
            used_by.setdefault(prompt, f"class '{kind['class_name']}'")
    used_by.setdefault(run.prompts.config.negative, "prompts.negative")
    return used_by


def _beginning(text: str) -> str:
    return text if len(text) <= BEGINNING else f"{text[:BEGINNING]}…"
