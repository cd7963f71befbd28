"""Which spectrum a configuration means: the one at `spectrum.path`, or the run's own.

The run's own is the one whose recorded configuration has the same identity fields of data and
phase 1. Nothing else is compared: a spectrum is found without the weights it was made with, and
after an update of the libraries. Of several that match none is chosen in silence.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from discl_ray.config import PHASE_1, Config
from discl_ray.core.run_directory import CONFIG, MANIFEST, PLAN_FILE, holder, run_store
from discl_ray.core.settings import identity
from discl_ray.core.storage import Store
from discl_ray.errors import ConfigError, SetupError
from discl_ray.process.calls import advice, again
from discl_ray.spectrum.made_with import MadeWith, read_made_with
from discl_ray.spectrum.open import PREFIX, Spectrum, read_recorded
from discl_ray.spectrum.remedies import COMMITS
from discl_ray.spectrum.samples import samples_of

MISSING = "no complete spectrum for this configuration"

NAMED = 6
"""Keys a message names."""


class Candidate(NamedTuple):
    """A spectrum of a run, finished or not, compared with the wanted configuration."""

    store: Store
    differing: Mapping[str, tuple[Any, Any]]
    """Keys with other values: (there, wanted)."""

    @property
    def complete(self) -> bool:
        """Whether every image is made."""
        return self.store.exists(MANIFEST)


def find_spectrum(wanted: Config, samples_now: str = "") -> Spectrum:
    """The complete spectrum of a configuration.

    `samples_now` is the folder name of the samples as the data is today, where it can be read: of
    several spectra, those made from it are preferred. Raises SetupError if there is none, naming
    the nearest, and ConfigError if there are several.
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
    """Keys that decide a spectrum and have other values in the two: (there, wanted)."""
    old, new = _deciding(there), _deciding(wanted)
    pairs = {key: (old.get(key), new.get(key)) for key in sorted({*old, *new})}
    return {key: (before, now) for key, (before, now) in pairs.items() if before != now}


def _deciding(config: Config) -> dict[str, Any]:
    """The values that decide a spectrum, by key."""
    plain = identity(config)
    return _flat({part: plain[part] for part in ("data", *PHASE_1)})


def _nothing_found(wanted: Config) -> str:
    """What there is instead of a complete spectrum, and what to do."""
    found = candidates(wanted)
    for candidate in found:
        if not candidate.differing and (words := _unfinished(candidate.store)):
            return words
    run = run_store(wanted.run.root, wanted.run.name, "")
    missing = f"{run.base}: {MISSING}"
    unreadable = [
        store
        for store in _spectra(wanted)
        if store.exists(MANIFEST) and read_recorded(store) is None
    ]
    if unreadable:
        store = unreadable[0]
        return (
            f"{missing}; {store.name} is complete, and its {CONFIG} is gone or cannot be read: "
            f"if it is the one, name it: spectrum.path={store.base}; else {advice('generate')}"
        )
    others = [candidate for candidate in found if candidate.complete and candidate.differing]
    if not others:
        return f"{missing}; {advice('generate')}"
    nearest = min(others, key=lambda candidate: (len(candidate.differing), candidate.store.name))
    differing = _in_words(nearest.differing)
    return (
        f"{missing}; the nearest is {nearest.store.name}, which differs in {differing}; "
        f"use that configuration, or {advice('generate')}"
    )


def _unfinished(store: Store) -> str:
    """What to do about a spectrum of the wanted configuration; empty if it is not even planned."""
    missing = f"{store.base}: {MISSING}"
    if who := holder(store):
        return f"{missing}; {who} is making it: wait for it, then {again()}"
    if not store.exists(PLAN_FILE):
        return ""
    count = len(store.list(COMMITS, ".json"))
    shards = "1 shard of it is" if count == 1 else f"{count} shards of it are"
    return f"{missing}; {shards} committed: {advice('generate')}, which goes on"


def _several(stores: Sequence[Store]) -> str:
    """All spectra that match, and how to choose one."""
    lines = [
        "several spectra were made with this configuration, from other images, weights or "
        "libraries; choose one:"
    ]
    for store in stores:
        made: MadeWith | None = read_made_with(store)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.modified(MANIFEST)))
        weights = f"weights {made.generator[:8]}" if made else "weights not recorded"
        count = store.read_json(MANIFEST).get("rows", "?")
        lines.append(f"  spectrum.path={store.base}   {when}, {weights}, {count} images")
    return "\n".join(lines)


def _in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Keys with both values, the first NAMED of them."""
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
    """Nested values by their keys, joined with dots."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{path}.{key}" if path else key
        if isinstance(inner, Mapping):
            found |= _flat(cast("Mapping[str, Any]", inner), name)
        else:
            found[name] = inner
    return found
