"""A whole comparison: spectra, cells and one table with its picture, over several seeds.

runs/<name>/compare-<hash8>.md, .png    rows x seeds of one table: means, paired differences, what they rest on
runs/<name>/gap-<hash8>.md, .png        the same rows on the task in three looks
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from discl_ray.cluster.map_blocks import as_tasks
from discl_ray.cluster.session import ray_session
from discl_ray.config import Config, with_values
from discl_ray.core.run_directory import locked, run_store
from discl_ray.core.storage import Store
from discl_ray.curriculum.progress import unpaired
from discl_ray.data import read_samples
from discl_ray.errors import ConfigError, IntegrityError, SetupError
from discl_ray.evaluate.held_out import commit
from discl_ray.experiments.cells import (
    Cells,
    compare_hash,
    compare_seed,
    difference,
    openings,
    read_cell,
)
from discl_ray.experiments.identify import identify
from discl_ray.experiments.rows import CE, PRIORS, RowSpec, caveat, plan_run
from discl_ray.experiments.spectra import open_for, since_made
from discl_ray.experiments.stages import Passed, check_stages, passed, probe_line
from discl_ray.experiments.statistics import Interval
from discl_ray.experiments.tables import TABLES, Table
from discl_ray.plan.prompts import load_prompts
from discl_ray.process.progress import Progress
from discl_ray.report.comparison import gap_picture, markdown, picture
from discl_ray.report.history import synthetic_seen, within_one_se
from discl_ray.report.tables import count
from discl_ray.spectrum.find import complete_matches
from discl_ray.spectrum.open import Spectrum
from discl_ray.synthesize.layout import lay_out
from discl_ray.synthesize.rounds import generate
from discl_ray.synthesize.run import prepare
from discl_ray.train.workers import each_alone

GAPS = {"none": "web", "medium": "sepia", "large": "ochre"}
"""The gap's dose -> data.look."""

GAP_COLUMNS = (("top1", "few"), ("top1", "overall"))
"""What the picture of the gap shows, as differences to CE: how hard a look is in itself is another thing."""

Seeded = tuple[Config, Spectrum]


ADAPTIVE_NOTE = (
    "Adaptive takes the level that progressed most (Algorithm 2); Adaptive (margin) keeps its level while the lead is under one"
    " standard error, paired by source. In the FLYP rows the steps on D come on top of the epoch, and other rows' epochs are as much"
    " longer; in the others they are part of it."
)


@dataclass(frozen=True, kw_only=True)
class Computed:
    """The cells of a table and what they rest on."""

    cells: Cells
    hard: list[int]
    """Hard training images of each seed."""
    probes: Passed
    """What the filter would pass of all seeds' probes; empty without an adaptive row."""
    caveat: str
    """What the table has to say of its task before anything else."""
    since_made: tuple[str, ...]
    """What is other today than when a spectrum was made, in sentences."""


def spectrum_of(config: Config) -> Seeded:
    """A seed with its spectrum, which is made if there is none."""
    complete = [] if config.spectrum.path else complete_matches(config)
    if not config.spectrum.path and (
        not complete or (len(complete) == 1 and _is_damaged(complete[0]))
    ):
        _make(config)
    return open_for(config)


def _is_damaged(store: Store) -> bool:
    """Whether something of a spectrum that was complete has to be made again."""
    try:
        Spectrum.open(store)
    except (SetupError, IntegrityError):
        return True
    return False


def _make(config: Config) -> None:
    """Phase 1 of a seed."""
    if config.hard.rule == "confidence":
        run = run_store(config.run.root, config.run.name, "")
        samples = read_samples(config.data, config.seed, run, num_cpus=config.run.num_cpus)
        identify(config, samples, load_prompts(config.prompts))
    run = prepare(config)
    with locked(run.store):
        print(f"spectrum of seed {config.seed} · {run.store.base}", flush=True)
        generate(lay_out(run))


def cells_of(config: Config, table: Table, seeds: int) -> Computed:
    """Every cell, computed if it is not there."""
    if not config.train.alone:
        print(
            f"  train.workers = {config.train.workers}: here each seed is trained by one worker",
            flush=True,
        )
    settled = each_alone(config)
    stores: dict[int, Seeded] = {}
    for seed in range(seeds):
        own, spectrum = spectrum_of(with_values(config, {"seed": seed}))
        stores[seed] = (own.model_copy(update={"train": settled.train}), spectrum)
        _check(table, *stores[seed])
    with ray_session(num_cpus=config.run.num_cpus or 2, needs={"CPU": 1.0}):
        compute_seeds(list(stores.values()), table)
    cells = {
        seed: {spec.label: read_cell(seeded, store, spec, table.columns) for spec in table.rows}
        for seed, (seeded, store) in stores.items()
    }
    hard = [
        spectrum.sources()["split"].to_pylist().count("train") for _, spectrum in stores.values()
    ]
    spectra = [spectrum for _, spectrum in stores.values()]
    return Computed(
        cells=cells,
        hard=hard,
        probes=_probes(table, list(stores.values())),
        caveat=caveat(spectra[0]),
        since_made=tuple(
            dict.fromkeys(sentence for spectrum in spectra for sentence in since_made(spectrum, ""))
        ),
    )


def compute_seeds(seeds: Sequence[Seeded], table: Table) -> None:
    """Computes what is missing of every seed's cells, a seed to a GPU or to a CPU; Ray has to be there.

    Raises ModelError if GPUs are reserved that cannot be used, DisclError if a training diverged.
    """
    arguments = [(seeded, store, table.rows) for seeded, store in seeds]
    progress = Progress(len(seeds), "seeds")
    for _ in as_tasks(compare_seed, arguments, gpu=seeds[0][0].train.on_gpu):
        progress.advance(1)
    progress.close()


def _check(table: Table, config: Config, spectrum: Spectrum) -> None:
    """Says of a seed's rows which stages are short, each once; raises ConfigError for one that is empty."""
    check_stages(
        {
            f"seed {config.seed}, {spec.label}": plan_run(spec.of(config), spectrum)
            for spec in table.rows
        },
        spectrum,
    )


def _is_adaptive(spec: RowSpec) -> bool:
    return dict(spec.values).get("curriculum.strategy") == "adaptive"


def _probes(table: Table, stores: Sequence[Seeded]) -> Passed:
    """The filter's verdicts on the probes of all seeds, by level."""
    if not any(map(_is_adaptive, table.rows)):
        return {}
    passes, made = Counter[int](), Counter[int]()
    for seeded, store in stores:
        for level, (kept, all_) in passed(store, seeded.filter, "probe").items():
            passes[level] += kept
            made[level] += all_
    return {level: (passes[level], made[level]) for level in sorted(made)}


def notes(table: Table, computed: Computed, command: str, seconds: float) -> str:
    """What the figures rest on."""
    cells, hard = computed.cells, computed.hard
    first = cells[min(cells)]
    some = next(iter(first.values()))
    parts = some.predicted
    sizes = ", ".join(
        f"{name} {int(p.part.sum())}"
        for (metric, name), p in parts.items()
        if metric == next(iter(parts))[0]
    )
    opened = ", ".join(
        f"{count} cells {times} time{'s' if times > 1 else ''}"
        for times, count in sorted(openings(cells).items())
    )
    lines = [
        f"- {len(cells)} seeds; a seed redraws the writers' roles, the mix of classes, the training images, initialisation and generation"
        " noise. The generator, the scorer and how places look are fixed.",
        f"- Rows of a seed share their start and take the same number of optimizer steps. Test images of seed 0: {sizes};"
        f" hard training images: {min(hard)} to {max(hard)}.",
        "- Intervals: bootstrap over seeds, then over the test images of each, 2,000 resamples; a row and its baseline see the same ones.",
        f"- Openings of the test images, from the ledgers: {opened}.",
        "- Text-only and Fixed never see a hard real image (paper §4.1).",
    ]
    lines += [f"- {sentence}." for sentence in computed.since_made]
    if computed.probes:
        lines += [
            f"- {ADAPTIVE_NOTE}",
            f"- {probe_line(computed.probes)}.".replace("probes", "Probes", 1),
        ]
    for spec in table.rows:
        shares = [
            s
            for rows in cells.values()
            if (s := within_one_se(rows[spec.label].history)) is not None
        ]
        if shares:
            share = 100 * sum(shares) / len(shares)
            old = sum(unpaired(rows[spec.label].history) for rows in cells.values())
            but = (
                f"; {old} stages were recorded without differences by source, and their errors are not paired"
                if old
                else ""
            )
            lines.append(
                f"- {spec.label}: {share:.0f} % of its stages were decided within one paired standard error{but}."
            )
        alphas = [
            cell.read["alpha"]
            for rows in cells.values()
            if "alpha" in (cell := rows[spec.label]).read
        ]
        if alphas:
            lines.append(
                f"- {spec.label}: α by seed, chosen on OOD val: {', '.join(f'{a:g}' for a in alphas)}."
            )
    devices = sorted(
        {cell.device for rows in cells.values() for cell in rows.values() if cell.device}
    )
    if devices:
        lines.append(f"- Each run was trained by one worker, on {' or '.join(devices)}.")
    lines.append(
        f"- Command: `{command}`, commit {commit()}. Wall time {seconds:.0f} s, without what was there already."
    )
    return "\n".join(lines)


def seen_of(spec: RowSpec, cells: Cells) -> str:
    """Synthetic images a row was trained on, the mean over seeds; a row of retrieved images saw none that was made for it."""
    found = [synthetic_seen(rows[spec.label].history) for rows in cells.values()]
    known = [number for number in found if number is not None]
    mean = sum(known) / len(known) if len(known) == len(found) else None
    return f"0, and {count(mean)} of the web" if spec.web == "retrieved" else count(mean)


def _table_text(computed: Computed, table: Table, what: str) -> str:
    cells = computed.cells
    seen = {spec.label: seen_of(spec, cells) for spec in table.rows}
    return markdown(
        means(cells, table), contrasts(cells, table), table.columns, what=what, seen=seen
    )


def _prior_of(config: Config) -> str:
    """For a table's first line; CLIPs have none."""
    return "" if config.train.model == "clip" else f", prior: {PRIORS[config.train.prior]}"


def contrasts(cells: Cells, table: Table) -> dict[tuple[str, str, tuple[str, str]], Interval]:
    """Every paired difference of a table."""
    return {
        (label, base, column): difference(cells, label, base, column)
        for label, base in table.baselines.items()
        for column in table.columns
    }


def means(cells: Cells, table: Table) -> dict[tuple[str, tuple[str, str]], Interval]:
    """Every mean of a table."""
    return {
        (r.label, column): difference(cells, r.label, None, column)
        for r in table.rows
        for column in table.columns
    }


def compare(config: Config, seeds: int, name: str, tag: str, command: str) -> None:
    """Makes what is missing of one of TABLES, prints its table and leaves it with its picture."""
    began, table = time.monotonic(), TABLES[name]
    computed = cells_of(config, table, seeds)
    found = contrasts(computed.cells, table)
    what = (
        "test, macro F1 and top-1 [%]" if table.columns[0][0] == "macro_f1" else "test, top-1 [%]"
    )
    text = "\n".join(
        [
            f"# {config.run.name}: {len(table.rows)} rows, {seeds} seeds{_prior_of(config)}\n",
            f"> {computed.caveat}\n",
            _table_text(computed, table, what),
            "",
            notes(table, computed, command, time.monotonic() - began),
            "",
        ]
    )
    store = run_store(config.run.root, config.run.name, "")
    file = tag or f"compare-{compare_hash(config, name)}"
    store.write(f"{file}.md", text.encode())
    store.write(
        f"{file}.png",
        picture(
            found, table.columns, title=f"{config.run.name}: paired differences on test [points]"
        ),
    )
    print(f"{text}\ncompared · {store.path(file)}.md and .png")


def compare_gaps(config: Config, seeds: int, tag: str, command: str) -> None:
    """The same rows on the task in several looks, in one picture and one table.

    Raises ConfigError for a task that has one look.
    """
    if config.data.name != "digits_lt":
        raise ConfigError(
            f"--table gap: data.name = {config.data.name}; only digits_lt comes in several looks"
        )
    began, table = time.monotonic(), TABLES["gap"]
    values: dict[tuple[str, str, tuple[str, str]], Interval] = {}
    texts = []
    notes_ = caveat_ = ""
    for dose, look in GAPS.items():
        computed = cells_of(with_values(config, {"data.look": look}), table, seeds)
        values |= {
            (dose, spec.label, column): difference(computed.cells, spec.label, CE.label, column)
            for spec in table.rows
            for column in GAP_COLUMNS
            if spec is not CE
        }
        body = _table_text(computed, table, "test, top-1 [%]")
        texts.append(f"## Gap: {dose} (look `{look}`)\n\n{body}\n")
        notes_ = notes(table, computed, command, time.monotonic() - began)
        caveat_ = computed.caveat
    title = f"# {config.run.name}: the gap, {seeds} seeds{_prior_of(config)}\n"
    text = "\n".join([title, f"> {caveat_}\n", *texts, notes_, ""])
    store = run_store(config.run.root, config.run.name, "")
    file = tag or f"gap-{compare_hash(config, 'gap')}"
    store.write(f"{file}.md", text.encode())
    store.write(
        f"{file}.png",
        gap_picture(
            values, list(GAPS), GAP_COLUMNS, title=f"{config.run.name}: gain over CE on test by gap"
        ),
    )
    print(f"{text}\ncompared · {store.path(file)}.md and .png")
