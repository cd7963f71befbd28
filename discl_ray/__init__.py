"""Diffusion Curriculum on Ray: from hard real images to a spectrum of synthetic ones, and training
on it with a curriculum.

The path in public names, in order; the commands of `discl-ray` take the same steps:

    >>> import discl_ray
    >>> config = discl_ray.load_config("digits_lt", ["run.root=runs", "plan.replicas=1"])
    >>> samples = discl_ray.read_samples(config)
    >>> samples.table.num_rows, len(samples.classes)
    (566, 10)
    >>> planned = discl_ray.plan_spectrum(config)
    >>> sorted(set(planned.plan["lam_pct"].to_pylist()))
    [0, 10, 30, 50]

`make_spectrum(config)` makes these images under Ray, `Spectrum.open(folder)` opens what was made,
`build_engine` makes images of rows without Ray, and `train_classifier(config)` trains on the
spectrum. A strategy of your own maps a `Situation` to a `Choice`, a reader returns a `Listing`:
docs/extending.md. Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from discl_ray.api import make_spectrum, plan_spectrum, read_samples, train_classifier
    from discl_ray.config import Config, load_config
    from discl_ray.curriculum.strategies import STRATEGIES, Choice, Situation
    from discl_ray.data.listing import Listing
    from discl_ray.errors import DisclError
    from discl_ray.generate.actor import build_engine
    from discl_ray.generate.engine import Row
    from discl_ray.spectrum.open import Spectrum

# in the order of the path
__all__ = [  # noqa: RUF022
    "Config",
    "load_config",
    "Listing",
    "read_samples",
    "plan_spectrum",
    "make_spectrum",
    "Spectrum",
    "build_engine",
    "Row",
    "STRATEGIES",
    "Situation",
    "Choice",
    "train_classifier",
    "DisclError",
]

_FOUND_IN = {
    "Config": "config",
    "load_config": "config",
    "Listing": "data.listing",
    "read_samples": "api",
    "plan_spectrum": "api",
    "make_spectrum": "api",
    "Spectrum": "spectrum.open",
    "build_engine": "generate.actor",
    "Row": "generate.engine",
    "STRATEGIES": "curriculum.strategies",
    "Situation": "curriculum.strategies",
    "Choice": "curriculum.strategies",
    "train_classifier": "api",
    "DisclError": "errors",
}
"""Public name -> the module of the package that has it."""


def __getattr__(name: str) -> Any:
    if name not in _FOUND_IN:
        raise AttributeError(f"module 'discl_ray' has no attribute '{name}'")
    return getattr(import_module(f"discl_ray.{_FOUND_IN[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
