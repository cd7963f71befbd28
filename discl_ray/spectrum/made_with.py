"""With what a spectrum was made: fingerprints of both models and the versions of the libraries, beside its plan.

They name what is made, and do not decide what may be trained on: a difference is one sentence in log and report.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError

FILE = "made_with.json"

LIBRARIES = ("torch", "diffusers", "transformers", "pillow", "open_clip_torch")
"""Those that decide what an image or a score is."""


@dataclass(frozen=True, kw_only=True)
class MadeWith:
    """What made a spectrum."""

    generator: str
    """Fingerprint of weights, sampler, precision and size."""
    scorer: str
    versions: Mapping[str, str]
    """Library -> version."""


def installed() -> dict[str, str]:
    """Versions of the libraries as they are installed here; one that is not is left out."""
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_made_with(run: Store, made: MadeWith) -> None:
    """Records what makes a spectrum, once."""
    run.write_json(FILE, asdict(made))


def read_made_with(run: Store) -> MadeWith | None:
    """What made a spectrum; None if it was made before that was recorded, or the record is damaged: it decides nothing."""
    if not run.exists(FILE):
        return None
    try:
        with run.reading(FILE):
            return MadeWith(**run.read_json(FILE))
    except IntegrityError:
        return None


def other_versions(made: MadeWith | None) -> str:
    """What is installed here in another version than a spectrum was made with, in a sentence; empty if nothing is."""
    here = installed()
    before = {} if made is None else made.versions
    differing = [
        f"{name} {version} (here {here.get(name, 'none')})"
        for name, version in before.items()
        if here.get(name) != version
    ]
    if not differing:
        return ""
    return f"the spectrum was made with {', '.join(differing)}; images and scores stay as they were made"
