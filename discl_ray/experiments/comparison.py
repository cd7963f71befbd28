"""A whole comparison: spectra, cells and one table with its picture, over several seeds.

runs/<name>/compare-<hash8>.md, .png    rows x seeds of one table: means, paired differences, notes
runs/<name>/gap-<hash8>.md, .png        the same rows on the task in three looks
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from discl_ray.cluster.map_blocks import as_tasks
from discl_ray.cluster.session import ray_session
from discl_ray.config import Config, with_values
from discl_ray.core.run_directory import locked, run_store
from discl_ray.core.storage import Store
from discl_ray.data import read_samples
from discl_ray.errors import ConfigError, IntegrityError, SetupError
from discl_ray.experiments.cells import (
    Cell,
    Cells,
    Column,
    compare_hash,
    compare_seed,
    difference,
    read_cell,
)
from discl_ray.experiments.footnotes import Computed, notes, probes_of, synthetic_images_of
from discl_ray.experiments.identify import identify
from discl_ray.experiments.rows import CE, PRIORS, PlannedRun, RowSpec, caveat, plan_run
from discl_ray.experiments.spectra import open_for, since_made
from discl_ray.experiments.stages import Passed, check_stages, passed
from discl_ray.experiments.statistics import Interval
from discl_ray.experiments.tables import TABLES, Table
from discl_ray.plan.prompts import load_prompts
from discl_ray.process.progress import Progress
from discl_ray.report.comparison import gap_picture, markdown, picture
from discl_ray.spectrum.find import complete_matches
from discl_ray.spectrum.open import Spectrum
from discl_ray.synthesize.layout import lay_out
from discl_ray.synthesize.rounds import generate
from discl_ray.synthesize.run import prepare
from discl_ray.train.workers import each_alone

log = logging.getLogger(__name__)

GAPS = {"none": "web", "medium": "sepia", "large": "ochre"}
"""Size of the gap between web and task -> data.look."""

GAP_COLUMNS = (("top1", "few"), ("top1", "overall"))
"""Columns of the gap's picture, as differences to CE: looks also differ in difficulty."""

Seeded = tuple[Config, Spectrum]

Gain = tuple[str, str, Column]
"""(row, baseline, column); in the picture of the gap (gap, row, column)."""

Means = dict[tuple[str, Column], Interval]
"""By (row, column)."""

Contrasts = dict[Gain, Interval]


def spectrum_of(config: Config) -> Seeded:
    """A seed with its spectrum, which is made if there is none."""
    if not config.spectrum.path and _is_missing(complete_matches(config)):
        _make(config)
    return open_for(config)


def _is_missing(complete: Sequence[Store]) -> bool:
    """Whether a seed has no complete spectrum, or a single one that is damaged."""
    if not complete:
        return True
    return len(complete) == 1 and _is_damaged(complete[0])


def _is_damaged(store: Store) -> bool:
    """Whether part of a complete spectrum has to be made again."""
    try:
        Spectrum.open(store)
    except (SetupError, IntegrityError):
        return True
    return False


def _make(config: Config) -> None:
    """Phase 1 of a seed."""
    if config.hard.rule == "confidence":
        num_cpus = config.run.num_cpus
        samples = read_samples(config.data, config.seed, _run_of(config), num_cpus=num_cpus)
        prompts = load_prompts(config.prompts)
        identify(config, samples, prompts)
    made = prepare(config)
    with locked(made.store):
        log.info("spectrum of seed %d · %s", config.seed, made.store.location())
        laid_out = lay_out(made)
        generate(laid_out)


def _run_of(config: Config) -> Store:
    """The folder of a run, which holds its comparisons."""
    return run_store(config.run.root, config.run.name, "")


def cells_of(config: Config, table: Table, seeds: int) -> Computed:
    """Every cell of a table; computes those that are missing."""
    if not config.train.alone:
        log.info("train.workers = %s: here one worker trains each seed", config.train.workers)
    settled = each_alone(config)
    seeded: list[Seeded] = []
    for seed in range(seeds):
        of_seed = with_values(config, {"seed": seed})
        own, spectrum = spectrum_of(of_seed)
        own = own.model_copy(update={"train": settled.train})
        _check(table, own, spectrum)
        seeded.append((own, spectrum))
    num_cpus = config.run.num_cpus or 2
    with ray_session(num_cpus=num_cpus, needs={"CPU": 1.0}):
        compute_seeds(seeded, table)
    return _computed(table, seeded)


def compute_seeds(
    seeds: Sequence[Seeded], table: Table, compute: Callable[..., None] = compare_seed
) -> None:
    """Computes the missing cells of each seed, one seed to a GPU, or to a CPU; needs a running Ray.

    `compute` is what the task of a seed does. Raises ModelError if GPUs are reserved that cannot be
    used, DisclError if a training diverged.
    """
    arguments = [(config, spectrum, table.rows) for config, spectrum in seeds]
    first, _ = seeds[0]
    on_gpu = first.train.on_gpu
    progress = Progress(len(seeds), "seeds")
    for _ in as_tasks(compute, arguments, gpu=on_gpu):
        progress.advance(1)
    progress.close()


def _computed(table: Table, seeds: Sequence[Seeded]) -> Computed:
    """The finished cells of all seeds, from disk, and what they rest on."""
    cells: dict[int, dict[str, Cell]] = {}
    hard: list[int] = []
    probes: list[Passed] = []
    changes: dict[str, None] = {}
    adaptive = any(map(_is_adaptive, table.rows))
    for config, spectrum in seeds:
        own = cells[config.seed] = {}
        for spec in table.rows:
            own[spec.label] = read_cell(config, spectrum, spec, table.columns)
        splits = spectrum.sources()["split"].to_pylist()
        hard.append(splits.count("train"))
        if adaptive:
            found = passed(spectrum, config.filter, "probe")
            probes.append(found)
        changed = since_made(spectrum, "")
        changes |= dict.fromkeys(changed)
    _, first = seeds[0]
    return Computed(
        cells=cells,
        hard=hard,
        probes=probes_of(probes),
        data=first.recorded.data.name if first.recorded else "",
        caveat=caveat(first),
        since_made=tuple(changes),
    )


def _check(table: Table, config: Config, spectrum: Spectrum) -> None:
    """Logs which stages of a seed's rows lack images; raises ConfigError for one without any."""
    planned: dict[str, PlannedRun] = {}
    for spec in table.rows:
        label = f"seed {config.seed}, {spec.label}"
        own = spec.of(config)
        planned[label] = plan_run(own, spectrum)
    check_stages(planned, spectrum)


def _is_adaptive(spec: RowSpec) -> bool:
    values = dict(spec.values)
    return values.get("curriculum.strategy") == "adaptive"


def contrasts(cells: Cells, table: Table) -> Contrasts:
    """Every paired difference of a table, by (row, baseline, column)."""
    found: Contrasts = {}
    for label, base in table.baselines.items():
        for column in table.columns:
            found[label, base, column] = difference(cells, label, base, column)
    return found


def means(cells: Cells, table: Table) -> Means:
    """Every mean of a table, by (row, column)."""
    found: Means = {}
    for spec in table.rows:
        for column in table.columns:
            found[spec.label, column] = difference(cells, spec.label, None, column)
    return found


def _table_text(computed: Computed, table: Table, what: str) -> str:
    """The table in Markdown; `what` says what its figures are."""
    cells = computed.cells
    seen: dict[str, str] = {}
    for spec in table.rows:
        seen[spec.label] = synthetic_images_of(spec, cells)
    figures = means(cells, table)
    differences = contrasts(cells, table)
    return markdown(figures, differences, table.columns, what=what, seen=seen)


def _prior_of(config: Config) -> str:
    """For a table's first line; CLIPs have none."""
    if config.train.model == "clip":
        return ""
    prior = PRIORS[config.train.prior]
    return f", prior: {prior}"


def _quoted(caveat: str) -> list[str]:
    """A caveat as a block quote; nothing if there is none."""
    return [f"> {caveat}\n"] if caveat else []


def compare(config: Config, seeds: int, name: str, tag: str, command: str) -> str:
    """Computes what is missing of one of TABLES, writes it with its picture, and returns its text.

    The last line says where both are.
    """
    began = time.monotonic()
    table = TABLES[name]
    computed = cells_of(config, table, seeds)
    what = "test, top-1 [%]"
    if table.columns[0][0] == "macro_f1":
        what = "test, macro F1 and top-1 [%]"
    run = config.run.name
    rows = len(table.rows)
    prior = _prior_of(config)
    body = _table_text(computed, table, what)
    seconds = time.monotonic() - began
    lines = [
        f"# {run}: {rows} rows, {seeds} seeds{prior}\n",
        *_quoted(computed.caveat),
        body,
        "",
        notes(table, computed, command, seconds),
        "",
    ]
    differences = contrasts(computed.cells, table)
    title = f"{run}: paired differences on test [points]"
    drawn = picture(differences, table.columns, title=title)
    hash_ = compare_hash(config, name)
    file = tag or f"compare-{hash_}"
    text = "\n".join(lines)
    return _write(config, file, text, drawn)


def _write(config: Config, file: str, text: str, drawn: bytes) -> str:
    """Writes a comparison; returns its text and where it is."""
    store = _run_of(config)
    store.write(f"{file}.md", text.encode())
    store.write(f"{file}.png", drawn)
    written = store.location(f"{file}.md")
    return f"{text}\ncompared · {written} and .png"


def compare_gaps(config: Config, seeds: int, tag: str, command: str) -> str:
    """The same rows on the task in several looks: one picture, one text with a table for each.

    Raises ConfigError for a task that has one look.
    """
    if config.data.name != "digits_lt":
        raise ConfigError(
            f"--table gap: data.name = {config.data.name}; only digits_lt comes in several looks"
        )
    began = time.monotonic()
    table = TABLES["gap"]
    values: Contrasts = {}
    texts: list[str] = []
    computed = None
    for gap, look in GAPS.items():
        with_look = with_values(config, {"data.look": look})
        computed = cells_of(with_look, table, seeds)
        gains = _gains_over_ce(computed.cells, table)
        for (label, column), gain in gains.items():
            values[gap, label, column] = gain
        body = _table_text(computed, table, "test, top-1 [%]")
        texts.append(f"## Gap: {gap} (look `{look}`)\n\n{body}\n")
    assert computed is not None  # GAPS is not empty
    seconds = time.monotonic() - began
    run = config.run.name
    prior = _prior_of(config)
    lines = [
        f"# {run}: the gap, {seeds} seeds{prior}\n",
        *_quoted(computed.caveat),
        *texts,
        notes(table, computed, command, seconds),
        "",
    ]
    title = f"{run}: gain over CE on test by gap"
    gaps = list(GAPS)
    drawn = gap_picture(values, gaps, GAP_COLUMNS, title=title)
    hash_ = compare_hash(config, "gap")
    file = tag or f"gap-{hash_}"
    text = "\n".join(lines)
    return _write(config, file, text, drawn)


def _gains_over_ce(cells: Cells, table: Table) -> Means:
    """The differences of all other rows to CE, by (row, column of GAP_COLUMNS)."""
    found: Means = {}
    for spec in table.rows:
        if spec is CE:
            continue
        for column in GAP_COLUMNS:
            found[spec.label, column] = difference(cells, spec.label, CE.label, column)
    return found
