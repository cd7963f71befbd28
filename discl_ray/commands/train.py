"""Trains a classifier on the spectrum with a curriculum, beside plain training from the same start
with the same steps.

    discl-ray train --config digits_lt curriculum.strategy=all_level
    python jobs/train.py --config conf/digits_lt.yaml curriculum.strategy=all_level
    ray job submit --working-dir . -- python jobs/train.py run.root=/shared/runs

Needs a complete spectrum (generate with the same configuration, or spectrum.path=FOLDER), and
nothing that made it. The default takes one to three minutes on two cores. Rerunning resumes;
finished runs are not trained again, only evaluated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from discl_ray.cluster.checks import refuse
from discl_ray.config import Config
from discl_ray.process.calls import next_command
from discl_ray.train.workers import TRAINING

if TYPE_CHECKING:  # imports PyTorch, which takes seconds: only once the configuration is valid
    from discl_ray.experiments.pair import TrainedRow
    from discl_ray.spectrum.open import Spectrum


def job(config: Config) -> None:
    """Trains, tests and reports."""
    refuse(config, TRAINING)
    from discl_ray.experiments.pair import pair_of, train_pair
    from discl_ray.experiments.rows import plan_run
    from discl_ray.experiments.spectra import open_for
    from discl_ray.experiments.stages import check_stages, passed, probe_line

    config, spectrum = open_for(config)
    specs = pair_of(config)
    planned = plan_run(config, spectrum)
    configured = specs[-1].label
    check_stages({configured: planned}, spectrum)  # before Ray starts
    if config.curriculum.strategy == "adaptive":
        probes = passed(spectrum, config.filter, "probe")
        print(f"  {probe_line(probes)}", flush=True)
    trained = train_pair(config, spectrum, specs)
    report(config, spectrum, trained)


def report(config: Config, spectrum: Spectrum, rows: list[TrainedRow]) -> None:
    """Writes the curves beside the last row's run, and prints the table."""
    from discl_ray.experiments.rows import caveat, heading
    from discl_ray.experiments.run_workers import describe_workers
    from discl_ray.report.curves import curves
    from discl_ray.report.history import PICTURE, synthetic_seen
    from discl_ray.report.tables import score_table

    note = caveat(spectrum)
    store = rows[-1].planned.store
    histories = {row.label: row.history for row in rows}
    picture = curves(histories, note=note)
    store.write("curves.png", picture)
    for line in (note, heading(config)):
        print(f"  {line}".rstrip())
    labels = tuple(histories)
    seen = {label: synthetic_seen(history) for label, history in histories.items()}
    scores = {row.label: row.scores for row in rows}
    difference = (labels[0], labels[1]) if len(labels) > 1 else None
    table = score_table(scores, seen=seen, difference=difference)
    print(table)
    workers = describe_workers([row.planned for row in rows])
    print(f"  trained by {workers}")
    print(
        f"  one seed ({config.seed}), same start and steps for both; `make compare` draws several."
    )
    pictures = store.location("curves.png")
    if store.exists(PICTURE):
        pictures += f" and {PICTURE}"
    following = next_command("compare")
    print(f"trained · look at {pictures} · next: {following}")
