"""The notes under a comparison's table: what its figures rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from discl_ray.curriculum.progress import unpaired
from discl_ray.data.notes import notes_on
from discl_ray.evaluate.held_out import commit
from discl_ray.experiments.cells import Cell, Cells, openings
from discl_ray.experiments.rows import RowSpec
from discl_ray.experiments.stages import Passed, probe_line
from discl_ray.experiments.statistics import RESAMPLES
from discl_ray.experiments.tables import Table
from discl_ray.report.history import synthetic_seen, within_one_se
from discl_ray.report.tables import count

ADAPTIVE = (
    "Adaptive takes the level that progressed most (Algorithm 2); Adaptive (margin) keeps its level"
    " while the lead is under one standard error, paired by source. In the FLYP rows the steps on D"
    " come on top of the epoch, and other rows' epochs are as much longer; in the others they are"
    " part of it."
)


@dataclass(frozen=True, kw_only=True)
class Computed:
    """The cells of a table and what they rest on."""

    cells: Cells
    hard: list[int]
    """Hard training images of each seed."""
    probes: Passed
    """How many probes of all seeds the filter would pass; empty without an adaptive row."""
    data: str
    """`data.name` of the spectra; empty where it is not recorded."""
    caveat: str
    """What the table says of its data before any figure."""
    since_made: tuple[str, ...]
    """What has changed since a spectrum was made, in sentences."""


def notes(table: Table, computed: Computed, command: str, seconds: float) -> str:
    """The notes as a list in Markdown."""
    cells = computed.cells
    seeds = _number(len(cells), "seed")
    redrawn = notes_on(computed.data).redrawn
    opened = _opened(cells)
    sentences = [
        f"{seeds}; {redrawn}.",
        _shared(computed),
        f"Intervals: bootstrap over seeds, then over the test images of each, {RESAMPLES:,} "
        "resamples; a row and its baseline see the same ones.",
        f"Openings of the test images, from the ledgers: {opened}.",
        "Text-only and Fixed never see a hard real image (paper §4.1).",
    ]
    sentences += [f"{sentence}." for sentence in computed.since_made]
    if computed.probes:
        line = probe_line(computed.probes)
        probes = line.replace("probes", "Probes", 1)
        sentences += [ADAPTIVE, f"{probes}."]
    for spec in table.rows:
        of_seeds = [rows[spec.label] for rows in cells.values()]
        sentences += _of_row(spec, of_seeds)
    devices = {cell.device for cell in _all(cells) if cell.device}
    if devices:
        on = " or ".join(sorted(devices))
        sentences.append(f"Each run was trained by one worker, on {on}.")
    state = commit()
    sentences.append(
        f"Command: `{command}`, commit {state}. Wall time {seconds:.0f} s, without what was "
        "computed before."
    )
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _number(number: int, word: str) -> str:
    """A number with its noun: 1 seed, 2 seeds."""
    noun = word if number == 1 else f"{word}s"
    return f"{number} {noun}"


def _all(cells: Cells) -> Iterator[Cell]:
    """The cells of every row and seed."""
    for rows in cells.values():
        yield from rows.values()


def _shared(computed: Computed) -> str:
    """What rows of a seed share, and how many images there are."""
    first = min(computed.cells)
    rows = computed.cells[first]
    some = next(iter(rows.values()))
    metric, _ = next(iter(some.predicted))
    sizes: list[str] = []
    for (figure, name), predicted in some.predicted.items():
        if figure == metric:  # each metric has the same groups
            images = np.count_nonzero(predicted.part)
            sizes.append(f"{name} {images}")
    by_group = ", ".join(sizes)
    fewest = min(computed.hard)
    most = max(computed.hard)
    return (
        "Rows of a seed share their start and take the same number of optimizer steps. Test images "
        f"of seed {first}: {by_group}; hard training images: {fewest} to {most}."
    )


def _opened(cells: Cells) -> str:
    """How many cells opened the test images how often."""
    parts: list[str] = []
    for often, number in sorted(openings(cells).items()):
        some = _number(number, "cell")
        times = _number(often, "time")
        parts.append(f"{some} {times}")
    return ", ".join(parts)


def _of_row(spec: RowSpec, cells: Sequence[Cell]) -> Iterator[str]:
    """What a row's own choices were: between levels, and of α."""
    shares = [within_one_se(cell.history) for cell in cells]
    known = [share for share in shares if share is not None]
    if known:
        percent = 100 * sum(known) / len(known)
        old = sum(unpaired(cell.history) for cell in cells)
        but = ""
        if old:
            some = _number(old, "stage")
            but = f"; {some} recorded without differences by source, whose errors are not paired"
        yield (
            f"{spec.label}: {percent:.0f} % of its stages were decided within one paired standard "
            f"error{but}."
        )
    alphas = [cell.read["alpha"] for cell in cells if "alpha" in cell.read]
    if alphas:
        shown = ", ".join(f"{alpha:g}" for alpha in alphas)
        yield f"{spec.label}: α by seed, chosen on OOD val: {shown}."


def probes_of(found: Sequence[Passed]) -> Passed:
    """How many probes of all seeds pass the filter, and how many there are, by level."""
    passes = Counter[int]()
    made = Counter[int]()
    for one_seed in found:
        for lam_pct, (kept, total) in one_seed.items():
            passes[lam_pct] += kept
            made[lam_pct] += total
    return {lam_pct: (passes[lam_pct], made[lam_pct]) for lam_pct in sorted(made)}


def synthetic_images_of(spec: RowSpec, cells: Cells) -> str:
    """Synthetic images a row was trained on, the mean over seeds; retrieved ones are apart."""
    numbers = [synthetic_seen(rows[spec.label].history) for rows in cells.values()]
    known = [number for number in numbers if number is not None]
    mean = None
    if len(known) == len(numbers):
        mean = sum(known) / len(known)
    shown = count(mean)
    if spec.web == "retrieved":
        return f"0, and {shown} of the web"
    return shown
