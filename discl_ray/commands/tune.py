"""Sweeps schedules and their parameters under Ray Tune, and names the best on val.

    discl-ray tune --config digits_lt --config tune_digits_lt
    python jobs/tune.py --config conf/digits_lt.yaml --config conf/tune_digits_lt.yaml
    python jobs/tune.py --config conf/digits_lt.yaml --config conf/tune_digits_lt.yaml tune.trials=40 tune.search=optuna

Needs a complete spectrum (`make generate` with the same data and plan, or spectrum.path=FOLDER), one for each of `tune.seeds`. The
space and all it leads to are checked before the first trial. Killed, it goes on by the same command. Leaves tune.md, tune.png and
best.yaml under <root>/<name>/tune-<hash8>/; best.yaml is laid over the configuration. Validation images decide; test images are
not opened.
"""

import os
from collections.abc import Sequence

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


def seeds_of(config: Config) -> list[tuple[Config, Spectrum]]:
    """Every seed with its spectrum; raises ConfigError naming all that are not there."""
    if config.spectrum.path and config.tune.seeds > 1:
        raise ConfigError(
            f"spectrum.path names one spectrum, and tune.seeds = {config.tune.seeds} need one each; leave one of them out"
        )
    seeds: list[tuple[Config, Spectrum]] = []
    missing: list[str] = []
    for seed in range(config.seed, config.seed + config.tune.seeds):
        try:
            seeds.append(open_for(with_values(config, {"seed": seed}), "val"))
        except SetupError as error:
            missing.append(f"seed {seed}: {error}")
    if missing:
        raise ConfigError("\n  ".join(["spectra are missing", *missing]))
    return seeds


def next_command(swept: Sequence[str], best: str) -> str:
    """The command that trains with the best values: the files and overrides of this one, without what the sweep decided."""
    call = Call.this()
    kept = [
        word
        for word in call.rest
        if not word.startswith("tune.") and word.partition("=")[0] not in swept
    ]
    near = os.path.relpath(best)
    return call.command(
        "train",
        files=[*(call.files or [DEFAULT]), best if near.startswith("..") else near],
        rest=kept,
    )


def write_results(
    config: Config, spectrum: Spectrum, store: Store, dimensions: Sequence[Dimension]
) -> None:
    """tune.md, tune.png and best.yaml; prints the table and what to do next. Raises DisclError if no trial finished."""
    from discl_ray.experiments.rows import caveat
    from discl_ray.experiments.tune.outcomes import best_of, read_outcomes
    from discl_ray.report.sweep import sweep_picture, sweep_table
    from discl_ray.report.tables import count

    outcomes = read_outcomes(store)
    best = outcomes[0] if outcomes and outcomes[0].status == "finished" else None
    metric = (
        next((o.rows[-1]["metric"] for o in outcomes if o.rows), "val")
        .removeprefix("val_")
        .replace("_", " ")
    )
    rows = [
        {
            "rank": str(number) if o.status == "finished" else "–",
            f"{metric} on val [%]": f"{o.dev:.2f}" if o.rows else "–",
        }
        | {d.key: text(o.point[d.key]) for d in dimensions}
        | {
            "synthetic seen": count(o.seen),
            "epochs": f"{o.epoch}/{o.epochs}",
            "status": f"{o.status}: {o.reason}" if o.reason else o.status,
        }
        for number, o in enumerate(outcomes, 1)
    ]
    counts = {
        status: sum(o.status == status for o in outcomes)
        for status in ("finished", "stopped", "failed")
    }
    seeds = ", ".join(str(config.seed + i) for i in range(config.tune.seeds))
    body = "\n".join(
        [
            f"# {config.run.name}: a sweep of {len(outcomes)} trials\n",
            *([f"> {caveat(spectrum)}\n"] if caveat(spectrum) else []),
            sweep_table(rows) if rows else "No trial began.",
            "",
            f"- {', '.join(f'{count} {status}' for status, count in counts.items())}; search {config.tune.search}, scheduler"
            f" {config.tune.scheduler}, seed {seeds}. Only finished trials are ranked; the best of many on val looks better than it is.",
            "- Val decides; the test images were not opened.",
            "",
        ]
    )
    swept = {
        d.key: [(o.point[d.key], o.dev) for o in outcomes if o.status == "finished"]
        for d in dimensions
    }
    lines = [(o.status, [(row["epoch"], row["dev"]) for row in o.rows]) for o in outcomes]
    title = f"{config.run.name}: {len(outcomes)} trials"
    store.write("tune.md", body.encode())
    store.write(
        "tune.png",
        sweep_picture(lines, None if best is None else 0, swept, metric=metric, title=title),
    )
    print(body)
    point: Point = best_of(outcomes).point
    store.write("best.yaml", yaml.safe_dump(nested(point), sort_keys=False).encode())
    print(f"swept · {store.path('tune.md')}, tune.png and best.yaml · next:")
    print(f"  {next_command(list(point), store.path('best.yaml'))}")


def settled_sweep(config: Config) -> Config:
    """The configuration with the workers of a trial, one unless more are asked for, and as many trials at a time as there are GPUs."""
    number = 1 if config.train.workers == "auto" else config.train.workers
    settled, gpus = each_alone(config, number), present(config.run).gpus
    concurrent = config.tune.concurrent
    if settled.train.on_gpu and concurrent * number > gpus:
        concurrent = max(1, gpus // number)
        print(
            f"  {concurrent} trial{'s' * (concurrent > 1)} at a time: tune.concurrent = {config.tune.concurrent}, {gpus} GPUs"
        )
    return with_values(settled, {"tune.concurrent": concurrent})


def job(config: Config) -> None:
    config = settled_sweep(config)
    seeds = seeds_of(config)
    made = set.intersection(*(set(spectrum.grid) for _, spectrum in seeds))
    dimensions = check_sweep(config, tuple(sorted(made)))
    from discl_ray.experiments.rows import plan_run
    from discl_ray.experiments.stages import check_points

    for own, spectrum in seeds:
        plan_run(own, spectrum)
    check_points(seeds, draw_points(dimensions, config.tune.trials, config.tune.seed))
    # a stopped Ray Train run lets go of its workers only where there is a dashboard
    with ray_session(
        num_cpus=config.run.num_cpus, needs=needs(config), dashboard=not config.train.alone
    ):
        from discl_ray.experiments.tune.outcomes import is_complete
        from discl_ray.experiments.tune.sweep import lay_out_sweep, run_sweep, sweep_store

        store = sweep_store(config, [spectrum for _, spectrum in seeds])
        with locked(store):
            print(f"tune · {store.base}", flush=True)
            if not is_complete(store):
                if run_sweep(lay_out_sweep(seeds, dimensions)):
                    store.write_json(MANIFEST, {"trials": len(store.list("trials", ".json"))})
                else:
                    print(
                        f"  ended by tune.time_limit_s = {config.tune.time_limit_s:g}; with more the sweep goes on",
                        flush=True,
                    )
            write_results(config, seeds[0][1], store, dimensions)
