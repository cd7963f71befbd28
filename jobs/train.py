"""Trains a classifier on the spectrum with a curriculum, beside plain training from the same start with the same steps.

    python jobs/train.py --config conf/digits_lt.yaml curriculum.strategy=all_level
    ray job submit --working-dir . -- python jobs/train.py run.root=/shared/runs

Needs a complete spectrum (`make generate` with the same configuration, or spectrum.path=FOLDER), and
nothing that made it. The default takes one to three minutes on two cores.
Rerunning resumes; finished runs are not trained again, only evaluated.
"""

from __future__ import annotations

from discl_ray.process.stopping import listen

if __name__ == "__main__":
    listen()  # before the imports, which take their time

from typing import TYPE_CHECKING

from discl_ray.cli import run_job
from discl_ray.cluster.checks import refuse
from discl_ray.cluster.session import ray_session
from discl_ray.config import Config
from discl_ray.process.calls import next_command
from discl_ray.train.workers import TRAINING

if TYPE_CHECKING:  # what stands on PyTorch takes seconds to import: not before the configuration is known to be sound
    from discl_ray.experiments.rows import RowSpec

SHORT = {"ce": "CE", "balanced_softmax": "BS", "logit_adjusted": "logit-adjusted"}


def rows_of(config: Config) -> tuple[RowSpec, RowSpec]:
    """The baseline and what was asked for."""
    from discl_ray.experiments.rows import CE, RowSpec, strategy_name

    name = strategy_name(config.curriculum)
    if config.train.model == "clip":
        return RowSpec(label="FLYP", values=(("curriculum.strategy", "real_only"),)), RowSpec(
            label=f"FLYP + {name}"
        )
    return CE, RowSpec(label=f"{SHORT[config.train.loss]} + {name}")


def _rows_words(base: RowSpec, asked: RowSpec, config: Config) -> str:
    """What the rows to come are."""
    first = f"{base.label}: real images alone, the baseline"
    if base.of(config) == asked.of(config):
        return first
    return f"{first}; {asked.label}: curriculum.strategy = {config.curriculum.strategy}; as many steps each"


def job(config: Config) -> None:
    refuse(config, TRAINING)
    from discl_ray.experiments.rows import SHARED, SHARED_WORDS, caveat, heading, plan_run
    from discl_ray.experiments.run_workers import describe_workers
    from discl_ray.experiments.spectra import open_for
    from discl_ray.experiments.stages import check_stages, passed, probe_line
    from discl_ray.experiments.training import evaluate_on_test, train_row
    from discl_ray.report.curves import curves
    from discl_ray.report.history import PICTURE, synthetic_seen
    from discl_ray.report.tables import score_table

    config, spectrum = open_for(config)
    base, asked = rows_of(config)
    check_stages(
        {asked.label: plan_run(config, spectrum)}, spectrum
    )  # refuses what cannot be, before Ray starts
    if config.curriculum.strategy == "adaptive":
        print(f"  {probe_line(passed(spectrum, config.filter, 'probe'))}", flush=True)
    same = base.of(config) == asked.of(config)
    results, histories, planned = {}, {}, None
    with ray_session(num_cpus=config.run.num_cpus, needs={}):
        from discl_ray.train.run_files import read_history

        start = None
        if config.train.start_steps:
            print(f"  {SHARED_WORDS}", flush=True)
            _, start = train_row(config, spectrum, label=SHARED, start=None, is_start=True)
        print(f"  {_rows_words(base, asked, config)}", flush=True)
        runs = []
        for spec in (base,) if same else (base, asked):
            planned, weights = train_row(spec.of(config), spectrum, label=spec.label, start=start)
            runs.append(planned)
            results[spec.label] = evaluate_on_test(planned, weights, spectrum)
            histories[spec.label] = read_history(planned.store)
    assert planned is not None  # the baseline is always trained
    planned.store.write("curves.png", curves(histories, note=caveat(spectrum)))
    print(f"  {caveat(spectrum)}".rstrip())
    print(f"  {heading(config)}".rstrip())
    seen = {label: synthetic_seen(history) for label, history in histories.items()}
    print(score_table(results, seen=seen, difference=None if same else (base.label, asked.label)))
    print(f"  trained by {describe_workers(runs)}")
    print(
        f"  one seed ({config.seed}), same start and steps for both; `make compare` draws several."
    )
    more = f" and {PICTURE}" if planned.store.exists(PICTURE) else ""
    print(
        f"trained · look at {planned.store.path('curves.png')}{more} · next: {next_command('compare')}"
    )


if __name__ == "__main__":
    run_job(__doc__, job)
