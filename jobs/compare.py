"""Rows x seeds in one table, with intervals of the paired differences.

    python jobs/compare.py --seeds 10 --config conf/digits_lt.yaml
    python jobs/compare.py --seeds 10 --config conf/digits_wild.yaml
    python jobs/compare.py --seeds 5 --table gap --config conf/digits_lt.yaml

Makes the predictions and spectra that are missing (a minute or two a seed on two cores), then trains every row of every seed, a seed
to a GPU, or to a CPU where there is none. Resumable: finished cells are not computed again. Leaves compare-<hash8>.md and .png under
<root>/<name>/.

--table: long_tail (every curriculum and control), low_quality (the same for CLIPs), short (five rows), gap (the same task in three
looks). Default: long_tail, or low_quality where train.model is clip. --tag says what one file is called.
"""

from discl_ray.process.stopping import listen

if __name__ == "__main__":
    listen()  # before the imports, which take their time

import argparse

from discl_ray.cli import run_job
from discl_ray.config import Config
from discl_ray.errors import ConfigError
from discl_ray.process.masking import masked


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--table")
    parser.add_argument("--tag", default="")
    known, rest = parser.parse_known_args()
    table = ["--table", known.table] if known.table else []
    asked = [
        masked(word) for word in rest if not word.startswith("run.root=")
    ]  # where it lies decides nothing
    command = " ".join(["python", "jobs/compare.py", "--seeds", str(known.seeds), *table, *asked])

    def job(config: Config) -> None:
        if known.seeds < 1:
            raise ConfigError(f"--seeds {known.seeds}: at least one is needed")
        if config.spectrum.path:
            raise ConfigError(
                f"spectrum.path = '{config.spectrum.path}': each seed of a comparison has a spectrum of its own, found by its "
                "configuration; leave it out, or train on this one: make train"
            )
        # what stands on PyTorch takes seconds to import: not before the configuration is known to be sound
        from discl_ray.experiments.comparison import compare, compare_gaps
        from discl_ray.experiments.tables import TABLES, table_for

        name = known.table or table_for(config)
        if name not in TABLES:
            raise ConfigError(
                f"--table {name}: there is no such table; there are {', '.join(sorted(TABLES))}"
            )
        if name == "gap":
            print(compare_gaps(config, known.seeds, known.tag, command))
        else:
            print(compare(config, known.seeds, name, known.tag, command))

    run_job(
        f"{__doc__}\nBesides the options below: --seeds N (default 10), --table NAME, --tag NAME.",
        job,
        rest,
    )


if __name__ == "__main__":
    main()
