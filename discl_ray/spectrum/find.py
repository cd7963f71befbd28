"""Which spectrum a configuration means: the one at `spectrum.path`, or the run's own whose recorded configuration is the same.

Identity fields of data and phase 1 are compared, and nothing else: a spectrum is found without the weights it was made with and
after an update of the libraries. Of several that match none is chosen in silence.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from discl_ray.config import PHASE_1, Config
from discl_ray.core.run_directory import CONFIG, MANIFEST, PLAN_FILE, holder, run_store
from discl_ray.core.settings import identity
from discl_ray.core.storage import Store
from discl_ray.errors import ConfigError, SetupError
from discl_ray.process.calls import advice, again
from discl_ray.spectrum.commit import COMMITS
from discl_ray.spectrum.made_with import MadeWith, read_made_with
from discl_ray.spectrum.open import PREFIX, Spectrum, read_recorded
from discl_ray.spectrum.samples import samples_of

NAMED = 6
"""Keys a message names."""


class Candidate(NamedTuple):
    """A spectrum of a run, finished or not, beside a configuration that is looked for."""

    store: Store
    differing: Mapping[str, tuple[Any, Any]]
    """Keys with other values: (there, wanted)."""

    @property
    def complete(self) -> bool:
        """Whether every image is made."""
        return self.store.exists(MANIFEST)


def find_spectrum(wanted: Config, samples_now: str = "") -> Spectrum:
    """The complete spectrum of a configuration.

    `samples_now` is the folder's name that the data has as it lies there today, where it can be read: of several spectra those made
    from it come first. Raises SetupError if there is none, naming the nearest, and ConfigError if there are several.
    """
    if wanted.spectrum.path:
        return Spectrum.open(wanted.spectrum.path)
    found = complete_matches(wanted)
    if not found:
        raise SetupError(_nothing_found(wanted))
    of_today = [store for store in found if samples_now and samples_of(store).name == samples_now]
    chosen = of_today or found
    if len(chosen) > 1:
        raise ConfigError(_several(chosen))
    return Spectrum.open(chosen[0])


def complete_matches(wanted: Config) -> list[Store]:
    """Complete spectra of the run with the same recorded configuration."""
    return [found.store for found in candidates(wanted) if found.complete and not found.differing]


def candidates(wanted: Config) -> list[Candidate]:
    """All spectra of the run that say how they are made."""
    recorded = [(store, read_recorded(store)) for store in _spectra(wanted)]
    return [
        Candidate(store, differences(there, wanted))
        for store, there in recorded
        if there is not None
    ]


def _spectra(wanted: Config) -> list[Store]:
    """The run's folders of spectra, finished or not."""
    run = run_store(wanted.run.root, wanted.run.name, "")
    return [run.within(folder) for folder in run.folders() if folder.startswith(PREFIX)]


def differences(there: Config, wanted: Config) -> dict[str, tuple[Any, Any]]:
    """Keys that decide a spectrum, of which two configurations have other values: (there, wanted)."""
    old, new = (
        _flat({part: plain[part] for part in ("data", *PHASE_1)})
        for plain in map(identity, (there, wanted))
    )
    return {
        key: (old.get(key), new.get(key))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    }


def _nothing_found(wanted: Config) -> str:
    """What there is instead of a complete spectrum, and what to do."""
    run = run_store(wanted.run.root, wanted.run.name, "")
    found = candidates(wanted)
    same = [candidate.store for candidate in found if not candidate.differing]
    for store in same:
        missing = f"{store.base}: no complete spectrum for this configuration"
        if who := holder(store):
            return f"{missing}; {who} is making it: wait for it, then {again()}"
        if store.exists(PLAN_FILE):
            return f"{missing}; {len(store.list(COMMITS, '.json'))} shards of it are committed: {advice('generate')}, which goes on"
    missing = f"{run.base}: no complete spectrum for this configuration"
    unreadable = [
        store
        for store in _spectra(wanted)
        if store.exists(MANIFEST) and read_recorded(store) is None
    ]
    if unreadable:
        return (
            f"{missing}; {unreadable[0].name} is complete, and its {CONFIG} is gone or cannot be read: if it is the one, name it: "
            f"spectrum.path={unreadable[0].base}; else {advice('generate')}"
        )
    others = [candidate for candidate in found if candidate.complete and candidate.differing]
    if not others:
        return f"{missing}; {advice('generate')}"
    nearest = min(others, key=lambda candidate: (len(candidate.differing), candidate.store.name))
    differing = _in_words(nearest.differing)
    return (
        f"{missing}; the nearest is {nearest.store.name}, which differs in {differing}; use that configuration, "
        f"or {advice('generate')}"
    )


def _several(stores: Sequence[Store]) -> str:
    """All spectra that match, and how to choose one."""
    lines = [
        "several spectra were made with this configuration, from other images, weights or libraries; choose one:"
    ]
    for store in stores:
        made: MadeWith | None = read_made_with(store)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.modified(MANIFEST)))
        weights = f"weights {made.generator[:8]}" if made else "weights not recorded"
        count = store.read_json(MANIFEST).get("rows", "?")
        lines.append(f"  spectrum.path={store.base}   {when}, {weights}, {count} images")
    return "\n".join(lines)


def _in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    shown = [
        f"{key} ({_value(old)} there, {_value(new)} here)"
        for key, (old, new) in list(differing.items())[:NAMED]
    ]
    more = f" and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
    return f"{', '.join(shown)}{more}"


def _value(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{path}.{key}" if path else key
        found |= _flat(inner, name) if isinstance(inner, Mapping) else {name: inner}
    return found
