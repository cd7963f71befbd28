"""Reads every byte of the spectrum again and compares it with what was committed.

    discl-ray verify --config digits_lt
    python jobs/verify.py --config conf/digits_lt.yaml
    discl-ray verify spectrum.path=/shared/runs/x/generate-1a2b3c4d

For after a disk's fault, a copy, or from time to time. Nothing else reads the bytes again: they are
hashed once, when they are written, and a resumed run compares sizes and footers only. Takes the
configuration of generate, or a folder by spectrum.path, complete or not; needs no models, no data
and no Ray. Damaged shards are deleted, and generate makes them again: verify itself makes none, so
that it can run where there is no GPU. Ends with exit code 1 if something is damaged.
"""

from __future__ import annotations

from discl_ray.config import Config
from discl_ray.core.run_directory import MANIFEST, locked
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.process.progress import Progress
from discl_ray.spectrum.files import data_stamps
from discl_ray.spectrum.find import spectra_of
from discl_ray.spectrum.fold import drop_folds
from discl_ray.spectrum.open import lost_commits
from discl_ray.spectrum.remedies import is_of_another_tool, remake
from discl_ray.spectrum.verify import Verified, damaged_fold, drop, verify

SHOWN = 10
"""Damaged shards that are printed."""


def job(config: Config) -> None:
    """Verifies the spectra of a configuration; raises IntegrityError if one is damaged."""
    damaged: list[str] = []
    for store in spectra_of(config):
        print(f"verify · {store.location()}", flush=True)
        found = _read_all(store)
        for line in list(found.damaged.values())[:SHOWN]:
            print(f"  {line}")
        fold = damaged_fold(store)
        if fold:
            print(f"  {fold}")
        told = _words(found, fold, is_of_another_tool(store))
        print(f"verified · {told}")
        lost = _lost(store)
        if found.damaged or fold:
            _mend(store, found, fold)
            damaged.append(f"{store.location()}: {told}; {remake(store)}")
        elif lost:
            damaged.append(f"{lost}; {remake(store)}, which makes their images again")
    if damaged:
        raise IntegrityError("\n".join(damaged))


def _read_all(store: Store) -> Verified:
    """Verifies a spectrum, and shows how far that is."""
    progress = Progress(len(data_stamps(store)), "files")
    try:
        return verify(store, lambda: progress.advance(1))
    finally:
        progress.close()


def _lost(store: Store) -> str:
    """What a spectrum that was complete has lost since; one that is not complete is named."""
    if is_of_another_tool(store):
        return ""
    if store.exists(MANIFEST):
        return lost_commits(store)
    print(f"  it is not complete: {remake(store)}, which goes on")
    return ""


def _mend(store: Store, found: Verified, fold: str) -> None:
    """Deletes the records of damaged shards, and a damaged fold."""
    if is_of_another_tool(store):
        return
    with locked(store):
        if found.damaged:
            drop(store, found.damaged)
        if fold:
            drop_folds(store)


def _words(found: Verified, fold: str, of_another_tool: bool) -> str:
    """What was read, how much of it is damaged, and what is deleted for that."""
    files = "1 file" if found.files == 1 else f"{found.files} files"
    read = f"{files}, {found.bytes / 1e6:.1f} MB"
    count = len(found.damaged)
    wrong = [f"{count} damaged"] if count else []
    wrong += ["the fold damaged"] if fold else []
    if not wrong and of_another_tool:
        return f"{read}: every page could be read"
    if not wrong:
        return f"{read}: every byte is as it was committed"
    told = f"{read}: {' and '.join(wrong)}"
    return told if of_another_tool else f"{told}, and deleted, to be made again"
