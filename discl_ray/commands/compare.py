"""Rows x seeds in one table, with intervals of the paired differences.

    discl-ray compare --seeds 10 --config digits_lt
    python jobs/compare.py --seeds 10 --config conf/digits_lt.yaml
    python jobs/compare.py --seeds 10 --config conf/digits_wild.yaml
    python jobs/compare.py --seeds 5 --table gap --config conf/digits_lt.yaml

Makes the predictions and spectra that are missing (a minute or two a seed on two cores), then
trains every row of every seed, a seed to a GPU, or to a CPU where there is none. Resumable:
finished cells are not computed again. Leaves compare-<hash8>.md and .png under <root>/<name>/.

--table: long_tail (every curriculum and control), low_quality (the same for CLIPs), short (five
rows), gap (the same task in three looks). Default: long_tail, or low_quality where train.model is
clip. --tag says what one file is called.
"""

from __future__ import annotations

from discl_ray.config import Config
from discl_ray.errors import ConfigError
from discl_ray.process.calls import Call
from discl_ray.process.masking import masked


def command_of(seeds: int, table: str | None) -> str:
    """The command that makes the table again, to be written below it; it does not name the run's
    folder."""
    call = Call.this()
    words = ["python", "jobs/compare.py"]
    if call.entry:
        words = [*call.entry, "compare"]
    words += ["--seeds", str(seeds)]
    if table:
        words += ["--table", table]
    for file in call.files:
        words += ["--config", masked(file)]
    words += [masked(word) for word in call.rest if _is_override(word)]
    return " ".join(words)


def _is_override(word: str) -> bool:
    """Whether a word is `key=value` and says more than where the run lies."""
    if word.startswith(("--", "run.root=")):
        return False
    return "=" in word


def job(config: Config, *, seeds: int, table: str | None, tag: str) -> None:
    """Makes what is missing, trains every cell and writes the table."""
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: at least one is needed")
    if config.spectrum.path:
        raise ConfigError(
            f"spectrum.path = '{config.spectrum.path}': each seed of a comparison has a spectrum "
            "of its own, found by its configuration; leave it out, or train on this one: make train"
        )
    # imports PyTorch, which takes seconds: only once the configuration is valid
    from discl_ray.experiments.comparison import compare, compare_gaps
    from discl_ray.experiments.tables import TABLES, table_for

    name = table or table_for(config)
    if name not in TABLES:
        known = ", ".join(sorted(TABLES))
        raise ConfigError(f"--table {name}: there is no such table; there are {known}")
    command = command_of(seeds, table)
    if name == "gap":
        print(compare_gaps(config, seeds, tag, command))
    else:
        print(compare(config, seeds, name, tag, command))
