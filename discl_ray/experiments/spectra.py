"""The spectrum a job trains on: found, named in the first line, and what is other today than when it was made."""

from __future__ import annotations

from typing import Literal

from discl_ray.config import PHASE_1, Config
from discl_ray.core.splits import no_image
from discl_ray.data import name_of_samples
from discl_ray.errors import DisclError
from discl_ray.spectrum.find import find_spectrum
from discl_ray.spectrum.made_with import other_versions, read_made_with
from discl_ray.spectrum.open import Spectrum


def open_for(config: Config, judged: Literal["val", "test"] = "test") -> tuple[Config, Spectrum]:
    """The spectrum of a configuration, and the configuration with what made it; prints both.

    Raises what `find_spectrum` does, and DataError if there is no real image of the split that is judged by.
    """
    today = "" if config.spectrum.path else samples_today(config)
    spectrum = find_spectrum(config, today)
    spectrum.check_judged(judged)
    print(f"spectrum · {spectrum.store.base}", flush=True)
    if not spectrum.split("val", ["label"]).num_rows:
        print(f"  {no_image('val')}: nothing is measured while training", flush=True)
    for sentence in since_made(spectrum, today):
        print(f"  {sentence}", flush=True)
    return with_recorded(config, spectrum), spectrum


def samples_today(config: Config) -> str:
    """The folder's name that the data has as it lies there today; empty where it cannot be read, which training does not need."""
    try:
        return name_of_samples(config.data, config.seed)
    except (DisclError, OSError):
        return ""


def since_made(spectrum: Spectrum, samples: str) -> list[str]:
    """What is other than when a spectrum was made, in sentences: the data, or the libraries."""
    found = [other_versions(read_made_with(spectrum.store))]
    if samples and samples != spectrum.samples.name:
        found.append(
            f"the data has changed since: the spectrum was made from {spectrum.samples.name}, and today's would be {samples}; "
            "it is trained on as it was"
        )
    if spectrum.recorded is None:
        found.append(
            "its configuration is not recorded: data.few_below and data.many_above say which classes are few and many"
        )
    return [sentence for sentence in found if sentence]


def with_recorded(config: Config, spectrum: Spectrum) -> Config:
    """A configuration with the parts that made the spectrum at `spectrum.path`, where they are recorded."""
    recorded = spectrum.recorded
    if config.spectrum.path is None or recorded is None:
        return config
    return config.model_copy(
        update={part: getattr(recorded, part) for part in ("data", *PHASE_1) if part != "seed"}
    )
