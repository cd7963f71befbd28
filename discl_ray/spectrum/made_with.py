"""What a spectrum was made with: fingerprints of both models, and the versions of the libraries.

They name what is made, and do not decide what may be trained on: a difference is one sentence in
log and report.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError

FILE = "made_with.json"

LIBRARIES = ("torch", "diffusers", "transformers", "pillow", "open_clip_torch")
"""Those whose versions may change images or scores."""


@dataclass(frozen=True, kw_only=True)
class MadeWith:
    """What made a spectrum."""

    generator: str
    """Fingerprint of weights, sampler, precision and size."""
    scorer: str
    versions: Mapping[str, str]
    """Library -> version."""


def installed() -> dict[str, str]:
    """Versions of the installed libraries; one that is not installed is left out."""
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_made_with(run: Store, made: MadeWith) -> None:
    """Records what makes a spectrum."""
    run.write_json(FILE, asdict(made))


def read_made_with(run: Store) -> MadeWith | None:
    """What made a spectrum; None if an earlier version did not record it, or it is damaged."""
    if not run.exists(FILE):
        return None
    try:
        with run.reading(FILE):
            return MadeWith(**run.read_json(FILE))
    except IntegrityError:  # nothing depends on it
        return None


def other_versions(made: MadeWith | None) -> str:
    """Which libraries have other versions here, in a sentence; empty if none has."""
    if made is None:
        return ""
    here = installed()
    differing = [
        f"{name} {version} (here {here.get(name, 'none')})"
        for name, version in made.versions.items()
        if here.get(name) != version
    ]
    if not differing:
        return ""
    listed = ", ".join(differing)
    return f"the spectrum was made with {listed}; images and scores stay as they were made"
