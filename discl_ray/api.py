"""The steps of the path as functions of one configuration; `discl_ray/__init__.py` names them.

Each does what the command of the same step does, without its pictures and tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from discl_ray.config import Config
    from discl_ray.data import Samples
    from discl_ray.experiments.pair import TrainedRow
    from discl_ray.spectrum.open import Spectrum
    from discl_ray.synthesize.run import Run


def read_samples(config: Config) -> Samples:
    """The configured data set as SAMPLES below `run.root`; what was read before is not read again.

    Raises DataError if it is not there or cannot be trained on.
    """
    from discl_ray.core.run_directory import run_store
    from discl_ray.data import read_samples as read

    run = run_store(config.run.root, config.run.name, "")
    return read(config.data, config.seed, run, num_cpus=config.run.num_cpus)


def plan_spectrum(config: Config) -> Run:
    """The hard samples (`.hard`) and every image to make of them (`.plan`); nothing is made.

    Raises ModelError if the models are not there or do not fit; `.plan` raises DataError if there
    is nothing to make.
    """
    from discl_ray.synthesize.run import prepare

    return prepare(config)


def make_spectrum(config: Config) -> Spectrum:
    """Makes, scores and commits every planned image that is not there yet, under Ray.

    Raises SetupError if the machine is too small, or another process makes the same spectrum, and
    ConfigError if a filter or strategy from outside cannot be imported.
    """
    from discl_ray.cluster.checks import FUNCTIONS, refuse
    from discl_ray.core.run_directory import locked
    from discl_ray.spectrum.open import Spectrum
    from discl_ray.synthesize.layout import lay_out
    from discl_ray.synthesize.rounds import generate, prepare_to_make

    refuse(config, FUNCTIONS)
    run, _ = prepare_to_make(config)
    with locked(run.store):
        lay_out(run)
        generate(run)
    return Spectrum.open(run.store)


def train_classifier(config: Config) -> list[TrainedRow]:
    """Trains the baseline and the configured curriculum on the spectrum of the configuration.

    The last is the configured one: its `weights`, its `scores` on test, its `history` by epoch.
    Raises SetupError if there is no complete spectrum, ConfigError if it lacks what is asked for.
    """
    from discl_ray.cluster.checks import FUNCTIONS, refuse
    from discl_ray.experiments.pair import pair_of, train_pair
    from discl_ray.experiments.rows import plan_run
    from discl_ray.experiments.spectra import open_for
    from discl_ray.experiments.stages import check_stages
    from discl_ray.train.workers import TRAINING

    refuse(config, (*FUNCTIONS, *TRAINING))
    config, spectrum = open_for(config)
    specs = pair_of(config)
    check_stages({specs[-1].label: plan_run(config, spectrum)}, spectrum)
    return train_pair(config, spectrum, specs)
