"""Trains a classifier on the spectrum with a curriculum, beside plain training from the same start with the same steps.

    python jobs/train.py --config conf/digits_lt.yaml curriculum.strategy=all_level
    ray job submit --working-dir . -- python jobs/train.py run.root=/shared/runs

Needs a complete spectrum (`make generate` with the same configuration). The default takes about four minutes on two cores.
Rerunning resumes; finished runs are not trained again, only evaluated.
"""

from discl_ray.command import run_job
from discl_ray.config import Config
from discl_ray.experiments.rows import CE, SENTENCE, RowSpec, check_generated, test_row, train_row
from discl_ray.pipeline import prepare
from discl_ray.report.curves import curves
from discl_ray.report.tables import accuracy_table
from discl_ray.runtime import ray_session

LABELS = {"diverse_to_specific": "Diverse-to-Specific", "all_level": "All-Level", "real_only": "real only"}


def job(config: Config) -> None:
    generated, _ = prepare(config)
    check_generated(generated)
    strategy, loss = config.curriculum.strategy, config.train.loss
    asked = RowSpec(f"{'CE' if loss == 'ce' else 'BS'} + {LABELS[strategy]}", strategy, loss)
    needs = {"GPU" if config.train.use_gpu else "CPU": float(config.train.workers)}
    results, histories, planned = {}, {}, None
    with ray_session(num_cpus=config.run.num_cpus, needs=needs):
        from discl_ray.train.trainer import read_history

        print(f"train · spectrum {generated.base}", flush=True)
        _, start = train_row(config, generated, label="start (CE)", start=None)
        for row in dict.fromkeys((CE, asked)):
            planned, weights = train_row(row.of(config), generated, label=row.label, start=start)
            results[row.label] = test_row(planned, weights, generated)
            histories[row.label] = read_history(planned.store)
    assert planned is not None  # CE is always trained
    planned.store.write("curves.png", curves(histories))
    difference = (CE.label, asked.label) if asked != CE else None
    print(accuracy_table(results, difference=difference))
    print(f"  one seed ({config.seed}), same start and steps for both; `make compare` draws several. {SENTENCE}")
    print(f"trained · look at {planned.store.path('curves.png')} · next: make compare, or make help")


if __name__ == "__main__":
    run_job(__doc__, job)
