"""Strategies x seeds in one table, with intervals of the paired differences.

    python jobs/compare.py --seeds 5 --config conf/digits_lt.yaml

Makes the spectra that are missing (a minute or two each on two cores), then trains every row of every seed (about two minutes a
seed and core). Resumable: finished cells are not computed again. The table goes to <root>/<name>/compare-<hash8>.md.
"""

import argparse
import sys
import time

from discl_ray.command import run_job
from discl_ray.config import Config
from discl_ray.evaluate.test_split import commit
from discl_ray.experiments.compare import compare_hash, compare_seed, markdown
from discl_ray.experiments.rows import ALL_LEVEL, BS, BS_D2S, CE, D2S, SENTENCE
from discl_ray.pipeline import generate, lay_out, prepare
from discl_ray.run import MANIFEST, locked, run_store
from discl_ray.runtime import ray_session
from discl_ray.watch import Progress

ROWS = (CE, BS, ALL_LEVEL, D2S, BS_D2S)
BASELINES = {BS_D2S.label: BS.label, BS.label: CE.label, ALL_LEVEL.label: CE.label, D2S.label: CE.label}
"""Row -> what it is compared with; the primary contrast first."""


def job(config: Config, seeds: int) -> None:
    began = time.monotonic()
    stores = {}
    for seed in range(seeds):
        seeded = config.model_copy(update={"seed": seed})
        store, fingerprint = prepare(seeded)
        if not store.exists(MANIFEST):
            with locked(store):
                print(f"spectrum of seed {seed} · {store.base}", flush=True)
                generate(lay_out(seeded, store, fingerprint), seeded)
        stores[seed] = (seeded, store)
    cells = {}
    with ray_session(num_cpus=config.run.num_cpus or 2, needs={"CPU": 1.0}):
        import ray

        task = ray.remote(num_cpus=1)(compare_seed)
        waiting = {task.remote(seeded, store, ROWS): seed for seed, (seeded, store) in stores.items()}
        progress = Progress(seeds, "seeds")
        while waiting:
            done, _ = ray.wait(list(waiting))
            seed = waiting.pop(done[0])
            cells[seed] = ray.get(done[0])
            progress.advance(1)
        progress.close()
    sizes = ", ".join(f"{group} {n:.0f}" for group, (_, n) in cells[0][CE.label].items())
    text = "\n".join(
        [
            f"{SENTENCE}\n",
            markdown(cells, ROWS, BASELINES),
            f"\n{seeds} seeds; a seed redraws the writers' roles, the order of classes, the images a rare class keeps, initialisation and "
            f"generation noise. The generator and the scorer are fixed. Same CE start and same number of optimizer steps for all rows of a "
            f"seed. Test images of seed 0: {sizes}. Bootstrap over seeds. Wall time {time.monotonic() - began:.0f} s.",
            f"\nCommand: `python jobs/compare.py --seeds {seeds}`, commit {commit()}.\n",
        ]
    )
    store = run_store(config.run.root, config.run.name, "")
    name = f"compare-{compare_hash(config)}.md"
    store.write(name, text.encode())
    print(f"{text}\ncompared · {store.path(name).replace('//', '/')}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seeds", type=int, default=5)
    known, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    run_job(f"{__doc__}\nBesides the options below: --seeds N (default 5).", lambda config: job(config, known.seeds))
