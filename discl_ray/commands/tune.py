"""Sweeps schedules and their parameters under Ray Tune, and names the best on val.

    discl-ray tune --config digits_lt --config tune_digits_lt
    python jobs/tune.py --config conf/digits_lt.yaml --config conf/tune_digits_lt.yaml
    discl-ray tune tune.trials=40 tune.search=optuna

Needs a complete spectrum (`make generate` with the same data and plan, or spectrum.path=FOLDER),
one for each of `tune.seeds`. The space and all it leads to are checked before the first trial.
Killed, it goes on by the same command. Leaves tune.md, tune.png and best.yaml under
<root>/<name>/tune-<hash8>/; best.yaml is laid over the configuration. Validation images decide;
test images are not opened.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from discl_ray.cluster.inventory import present
from discl_ray.cluster.session import ray_session
from discl_ray.config import Config, with_values
from discl_ray.core.run_directory import MANIFEST, locked
from discl_ray.core.storage import Store
from discl_ray.errors import ConfigError, SetupError
from discl_ray.experiments.spectra import open_for
from discl_ray.experiments.tune.space import (
    Dimension,
    Point,
    check_sweep,
    draw_points,
    needs,
    nested,
    text,
)
from discl_ray.process.calls import DEFAULT, Call
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.workers import each_alone

if TYPE_CHECKING:  # imports PyTorch, which takes seconds: only once the configuration is valid
    from discl_ray.experiments.tune.outcomes import Outcome


def seeds_of(config: Config) -> list[tuple[Config, Spectrum]]:
    """Every seed with its spectrum; raises ConfigError naming all that are not there."""
    if config.spectrum.path and config.tune.seeds > 1:
        raise ConfigError(
            f"spectrum.path names one spectrum, and tune.seeds = {config.tune.seeds} need one "
            "each; leave one of them out"
        )
    seeds: list[tuple[Config, Spectrum]] = []
    missing: list[str] = []
    for seed in _seeds(config):
        own = with_values(config, {"seed": seed})
        try:
            seeds.append(open_for(own, "val"))
        except SetupError as error:
            missing.append(f"seed {seed}: {error}")
    if missing:
        lines = ["spectra are missing", *missing]
        raise ConfigError("\n  ".join(lines))
    return seeds


def _seeds(config: Config) -> range:
    """The seeds that a trial is trained with."""
    first = config.seed
    return range(first, first + config.tune.seeds)


def next_command(swept: Sequence[str], best: str) -> str:
    """The command that trains with the best values: the files and overrides of this one, without
    what the sweep decided."""
    call = Call.this()
    kept: list[str] = []
    for word in call.rest:
        key = word.partition("=")[0]
        if key not in swept and not key.startswith("tune."):
            kept.append(word)
    near = os.path.relpath(best)
    if near.startswith(".."):
        near = best
    files = call.files or (DEFAULT,)
    return call.command("train", files=[*files, near], rest=kept)


def write_results(
    config: Config, spectrum: Spectrum, store: Store, dimensions: Sequence[Dimension]
) -> None:
    """Writes tune.md, tune.png and best.yaml, and prints the table and what to do next.

    Raises DisclError if no trial finished.
    """
    from discl_ray.experiments.tune.outcomes import best_of, read_outcomes

    outcomes = read_outcomes(store)
    page = _page(config, spectrum, outcomes, dimensions)
    picture = _picture(config, outcomes, dimensions)
    store.write("tune.md", page.encode())
    store.write("tune.png", picture)
    print(page)
    point: Point = best_of(outcomes).point
    best = yaml.safe_dump(nested(point), sort_keys=False)
    store.write("best.yaml", best.encode())
    following = next_command(list(point), store.location("best.yaml"))
    print(f"swept · {store.location('tune.md')}, tune.png and best.yaml · next:")
    print(f"  {following}")


def _metric(outcomes: Sequence[Outcome]) -> str:
    """What trials are ranked by on val, in words."""
    for outcome in outcomes:
        if outcome.rows:
            named: str = outcome.rows[-1]["metric"]
            return named.removeprefix("val_").replace("_", " ")
    return "val"


def _page(
    config: Config, spectrum: Spectrum, outcomes: Sequence[Outcome], dimensions: Sequence[Dimension]
) -> str:
    """tune.md: a row a trial, the best first."""
    from discl_ray.experiments.rows import caveat
    from discl_ray.report.sweep import sweep_table

    metric = _metric(outcomes)
    rows: list[dict[str, str]] = []
    for number, outcome in enumerate(outcomes, 1):
        row = _table_row(number, outcome, dimensions, metric)
        rows.append(row)
    table = sweep_table(rows) if rows else "No trial began."
    seeds = ", ".join(map(str, _seeds(config)))
    settings = f"search {config.tune.search}, scheduler {config.tune.scheduler}, seed {seeds}"
    lines = [f"# {config.run.name}: a sweep of {len(outcomes)} trials\n"]
    note = caveat(spectrum)
    if note:
        lines.append(f"> {note}\n")
    lines += [
        table,
        "",
        f"- {_counts(outcomes)}; {settings}. Only finished trials are ranked; "
        "the best of many on val looks better than it is.",
        "- Val decides; the test images were not opened.",
        "",
    ]
    return "\n".join(lines)


def _counts(outcomes: Sequence[Outcome]) -> str:
    """How many trials finished, were stopped, and failed."""
    statuses = [outcome.status for outcome in outcomes]
    counts: list[str] = []
    for status in ("finished", "stopped", "failed"):
        number = statuses.count(status)
        counts.append(f"{number} {status}")
    return ", ".join(counts)


def _table_row(
    number: int, outcome: Outcome, dimensions: Sequence[Dimension], metric: str
) -> dict[str, str]:
    """A trial's cells by column."""
    from discl_ray.report.tables import count

    rank = str(number) if outcome.status == "finished" else "–"
    score = f"{outcome.dev:.2f}" if outcome.rows else "–"
    row = {"rank": rank, f"{metric} on val [%]": score}
    for dimension in dimensions:
        row[dimension.key] = text(outcome.point[dimension.key])
    row["synthetic seen"] = count(outcome.seen)
    row["epochs"] = f"{outcome.epoch}/{outcome.epochs}"
    reason = f": {outcome.reason}" if outcome.reason else ""
    row["status"] = f"{outcome.status}{reason}"
    return row


def _picture(config: Config, outcomes: Sequence[Outcome], dimensions: Sequence[Dimension]) -> bytes:
    """tune.png: each trial's course, and the score over each swept key."""
    from discl_ray.report.sweep import sweep_picture

    lines: list[tuple[str, list[tuple[int, float]]]] = []
    for outcome in outcomes:
        course = [(row["epoch"], row["dev"]) for row in outcome.rows]
        lines.append((outcome.status, course))
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    swept: dict[str, list[tuple[Any, float]]] = {}
    for dimension in dimensions:
        key = dimension.key
        swept[key] = [(outcome.point[key], outcome.dev) for outcome in finished]
    best = None
    if outcomes and outcomes[0].status == "finished":
        best = 0
    metric = _metric(outcomes)
    title = f"{config.run.name}: {len(outcomes)} trials"
    return sweep_picture(lines, best, swept, metric=metric, title=title)


def settled_sweep(config: Config) -> Config:
    """The configuration with the workers of a trial, one unless more are asked for, and as many
    trials at a time as there are GPUs."""
    number = 1 if config.train.workers == "auto" else config.train.workers
    settled = each_alone(config, number)
    gpus = present(config.run).gpus
    concurrent = config.tune.concurrent
    if settled.train.on_gpu and concurrent * number > gpus:
        concurrent = max(1, gpus // number)
        plural = "s" if concurrent > 1 else ""
        print(
            f"  {concurrent} trial{plural} at a time: "
            f"tune.concurrent = {config.tune.concurrent}, {gpus} GPUs"
        )
    return with_values(settled, {"tune.concurrent": concurrent})


def job(config: Config) -> None:
    """Checks the space, runs the trials that are missing, and reports."""
    config = settled_sweep(config)
    seeds = seeds_of(config)
    spectra = [spectrum for _, spectrum in seeds]
    in_all = set.intersection(*(set(spectrum.grid) for spectrum in spectra))
    levels = tuple(sorted(in_all))
    dimensions = check_sweep(config, levels)
    from discl_ray.experiments.rows import plan_run
    from discl_ray.experiments.stages import check_points

    for own, spectrum in seeds:
        plan_run(own, spectrum)
    points = draw_points(dimensions, config.tune.trials, config.tune.seed)
    check_points(seeds, points)
    # a stopped Ray Train run lets go of its workers only where there is a dashboard
    with ray_session(
        num_cpus=config.run.num_cpus, needs=needs(config), dashboard=not config.train.alone
    ):
        from discl_ray.experiments.tune.outcomes import is_complete
        from discl_ray.experiments.tune.sweep import lay_out_sweep, run_sweep, sweep_store

        store = sweep_store(config, spectra)
        with locked(store):
            print(f"tune · {store.location()}", flush=True)
            if not is_complete(store):
                sweep = lay_out_sweep(seeds, dimensions)
                if run_sweep(sweep):
                    trials = store.list("trials", ".json")
                    store.write_json(MANIFEST, {"trials": len(trials)})
                else:
                    limit = f"tune.time_limit_s = {config.tune.time_limit_s:g}"
                    print(f"  ended by {limit}; with more the sweep goes on", flush=True)
            write_results(config, spectra[0], store, dimensions)
