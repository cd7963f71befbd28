"""Which spectrum a configuration means: the one at `spectrum.path`, or the run's own.

The run's own is the one whose recorded configuration has the same identity fields of data and
phase 1. Fingerprints of weights and library versions are not compared: a spectrum is found without
the weights it was made with, and after an update. If several match, the user has to choose.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from discl_ray.config import PHASE_1, Config
from discl_ray.core.run_directory import CONFIG, MANIFEST, PLAN_FILE, SHARDS_FILE, holder, run_store
from discl_ray.core.settings import identity
from discl_ray.core.storage import Store
from discl_ray.errors import ConfigError, SetupError
from discl_ray.process.calls import advice, again
from discl_ray.spectrum.made_with import read_made_with
from discl_ray.spectrum.open import Spectrum, check_complete, read_recorded, spectrum_at
from discl_ray.spectrum.remedies import COMMITS, PREFIX
from discl_ray.spectrum.samples import samples_of

MISSING = "no complete spectrum for this configuration"

NAMED = 6
"""Keys a message names."""

LONGEST = 60
"""Characters of a value in a message."""


class Difference(NamedTuple):
    """A key's value in two configurations; None where it has no such key."""

    recorded: Any
    """In the configuration that made a spectrum."""
    wanted: Any
    """In the one a spectrum is looked for."""


Differences: TypeAlias = dict[str, Difference]
"""By dotted key, sorted; only keys whose values differ."""


class Candidate(NamedTuple):
    """A spectrum of a run, finished or not, compared with the wanted configuration."""

    store: Store
    differing: Differences
    """Empty if it is what is wanted."""

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
        raise SetupError(_none_complete(wanted))
    from_current_data: list[Store] = []
    if samples_now:
        from_current_data = [store for store in found if samples_of(store).name == samples_now]
    # if none is, the data changed since; `experiments.spectra` logs that once one is opened
    chosen = from_current_data or found
    if len(chosen) > 1:
        raise ConfigError(_several(chosen))
    return Spectrum.open(chosen[0])


def spectra_of(wanted: Config) -> list[Store]:
    """The folder that `spectrum.path` names, or the run's spectra of a configuration, finished or
    not.

    Raises SetupError if there is none.
    """
    if wanted.spectrum.path:
        store = spectrum_at(wanted.spectrum.path)
        if not store.list(COMMITS, ".json"):
            check_complete(store)
        return [store]
    found = [candidate.store for candidate in candidates(wanted) if not candidate.differing]
    if not found:
        raise SetupError(_none_complete(wanted))
    return found


def complete_matches(wanted: Config) -> list[Store]:
    """Complete spectra of the run with the same recorded configuration."""
    found: list[Store] = []
    for candidate in candidates(wanted):
        # completeness is checked second: on an object store each check is a request
        if not candidate.differing and candidate.complete:
            found.append(candidate.store)
    return found


def candidates(wanted: Config) -> list[Candidate]:
    """All spectra of the run that say how they are made."""
    found: list[Candidate] = []
    for store in _spectra(wanted):
        recorded = read_recorded(store)
        if recorded is not None:
            differing = differences(recorded, wanted)
            found.append(Candidate(store, differing))
    return found


def _spectra(wanted: Config) -> list[Store]:
    """The run's folders of spectra, finished or not."""
    run = run_store(wanted.run.root, wanted.run.name, "")
    return [run.within(folder) for folder in run.folders() if folder.startswith(PREFIX)]


def differences(recorded: Config, wanted: Config) -> Differences:
    """Keys that decide a spectrum and whose values differ."""
    old = _deciding(recorded)
    new = _deciding(wanted)
    found: Differences = {}
    for key in sorted({*old, *new}):
        pair = Difference(recorded=old.get(key), wanted=new.get(key))
        if pair.recorded != pair.wanted:
            found[key] = pair
    return found


def _deciding(config: Config) -> dict[str, Any]:
    """The values that decide a spectrum, by key."""
    plain = identity(config)
    parts = {part: plain[part] for part in ("data", *PHASE_1)}
    return _flat(parts)


def _none_complete(wanted: Config) -> str:
    """What there is instead of a complete spectrum, and what to do: the most useful of three."""
    found = candidates(wanted)
    for candidate in found:
        if not candidate.differing and (words := _unfinished(candidate.store)):
            return words
    run = run_store(wanted.run.root, wanted.run.name, "")
    instead = _unreadable(wanted) or _nearest(found) or advice("generate")
    return f"{run.location()}: {MISSING}; {instead}"


def _unreadable(wanted: Config) -> str:
    """Names a complete spectrum that does not say which configuration made it; empty if none."""
    for store in _spectra(wanted):
        if _is_unreadable(store):
            return (
                f"{store.name} is complete, and its {CONFIG} is gone or cannot be read: "
                f"if it is the one, name it: spectrum.path={store.location()}; "
                f"else {advice('generate')}"
            )
    return ""


def _nearest(found: Sequence[Candidate]) -> str:
    """Names the complete spectrum that differs in the fewest keys; empty if none is complete."""
    others = [candidate for candidate in found if candidate.differing and candidate.complete]
    if not others:
        return ""
    nearest = min(others, key=_distance)
    differing = _in_words(nearest.differing)
    return (
        f"the nearest is {nearest.store.name}, which differs in {differing}; "
        f"use that configuration, or {advice('generate')}"
    )


def _is_unreadable(store: Store) -> bool:
    """Whether a spectrum is complete and its recorded configuration cannot be read."""
    if not store.exists(MANIFEST):
        return False
    return read_recorded(store) is None


def _distance(candidate: Candidate) -> tuple[int, str]:
    """A key to sort candidates by: the number of differing keys; of equals, the folder's name."""
    return len(candidate.differing), candidate.store.name


def _unfinished(store: Store) -> str:
    """What to do about a spectrum of the wanted configuration; empty if it is not even planned."""
    missing = f"{store.location()}: {MISSING}"
    if who := holder(store):
        return f"{missing}; {who} is making it: wait for it, then {again()}"
    if not any(store.exists(file) for file in (SHARDS_FILE, PLAN_FILE)):
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
    lines.extend(f"  spectrum.path={store.location()}   {_described(store)}" for store in stores)
    return "\n".join(lines)


def _described(store: Store) -> str:
    """When a complete spectrum was closed, with which weights it was made, and how large it is."""
    made = read_made_with(store)
    weights = "weights not recorded"
    if made is not None:
        weights = f"weights {made.generator[:8]}"
    closed = time.localtime(store.modified(MANIFEST))
    when = time.strftime("%Y-%m-%d %H:%M", closed)
    count = store.read_json(MANIFEST).get("rows", "?")
    return f"{when}, {weights}, {count} images"


def _in_words(differing: Differences) -> str:
    """Keys with both values, the first NAMED of them."""
    shown: list[str] = []
    for key, pair in list(differing.items())[:NAMED]:
        recorded = _value(pair.recorded)
        wanted = _value(pair.wanted)
        shown.append(f"{key} ({recorded} there, {wanted} here)")
    listed = ", ".join(shown)
    if len(differing) <= NAMED:
        return listed
    return f"{listed} and {len(differing) - NAMED} more"


def _value(value: object) -> str:
    """A value as a message shows it: at most LONGEST characters."""
    if value is None:
        return "none"
    text = str(value)
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 3]}…"


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested values by their keys, joined with dots."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{path}.{key}" if path else key
        if isinstance(inner, Mapping):
            section = cast("Mapping[str, Any]", inner)
            found |= _flat(section, name)
        else:
            found[name] = inner
    return found
