"""The spectrum a job trains on: found, named in the first line, and what has changed since."""

from __future__ import annotations

import logging
from typing import Literal

from discl_ray.config import PHASE_1, Config
from discl_ray.core.splits import no_image
from discl_ray.data import name_of_samples
from discl_ray.errors import DisclError
from discl_ray.spectrum.find import find_spectrum
from discl_ray.spectrum.made_with import other_versions, read_made_with
from discl_ray.spectrum.open import Spectrum

log = logging.getLogger(__name__)


def open_for(config: Config, judged: Literal["val", "test"] = "test") -> tuple[Config, Spectrum]:
    """The spectrum of a configuration, and the configuration with the parts that made it.

    Raises what `find_spectrum` does, and DataError if the split `judged` has no real image.
    """
    today = "" if config.spectrum.path else samples_today(config)
    spectrum = find_spectrum(config, today)
    spectrum.check_judged(judged)
    log.info("spectrum · %s", spectrum.store.location())
    if not spectrum.split("val", ["label"]).num_rows:
        log.info("%s: nothing is measured while training", no_image("val"))
    for sentence in since_made(spectrum, today):
        log.info("%s", sentence)
    return with_recorded(config, spectrum), spectrum


def samples_today(config: Config) -> str:
    """The samples' folder name that the data would get today; empty if the data cannot be read.

    Training does not need the data once the image table is made.
    """
    try:
        return name_of_samples(config.data, config.seed)
    except (DisclError, OSError):
        return ""


def since_made(spectrum: Spectrum, samples: str) -> list[str]:
    """What has changed since a spectrum was made, the data or the libraries, in sentences."""
    found = [other_versions(read_made_with(spectrum.store))]
    if samples and samples != spectrum.samples.name:
        found.append(
            f"the data has changed since: the spectrum was made from {spectrum.samples.name}, and "
            f"today's would be {samples}; it is trained on as it was"
        )
    if spectrum.recorded is None:
        found.append(
            "its configuration is not recorded: data.few_below and data.many_above say which "
            "classes are few and many"
        )
    return [sentence for sentence in found if sentence]


def with_recorded(config: Config, spectrum: Spectrum) -> Config:
    """A configuration with the recorded parts that made the spectrum at `spectrum.path`."""
    recorded = spectrum.recorded
    if config.spectrum.path is None or recorded is None:
        return config
    parts = {part: getattr(recorded, part) for part in ("data", *PHASE_1) if part != "seed"}
    return config.model_copy(update=parts)
