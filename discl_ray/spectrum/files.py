"""Which files hold the rows of a spectrum."""

from __future__ import annotations

from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.spectrum.records import CommittedFile, committed, each_of
from discl_ray.spectrum.remedies import DATA, is_of_another_tool


def committed_files(run: Store) -> list[str]:
    """Names of the files with the committed rows, sorted; of another tool's spectrum, all files."""
    if is_of_another_tool(run):
        return run.list(DATA, ".parquet")
    return sorted(file.name for file in _recorded_files(run))


def content_of(run: Store) -> list[str]:
    """Hashes of the files with the committed rows, sorted."""
    if not is_of_another_tool(run):
        return sorted(file.sha256 for file in _recorded_files(run))
    # Without a record the bytes themselves must be read.
    names = run.list(DATA, ".parquet")
    hashes = each_of(lambda name: sha256(run.read(name)), names)
    return sorted(hashes)


def _recorded_files(run: Store) -> list[CommittedFile]:
    """The files that all commit records name."""
    files: list[CommittedFile] = []
    for record in committed(run).values():
        files.extend(record.files)
    return files


def data_files(run: Store) -> dict[str, list[str]]:
    """Folder -> files with rows, committed or not, in any layout; empty folders are left out."""
    inner = [f"{DATA}/{folder}" for folder in run.folders(DATA)]
    found: dict[str, list[str]] = {}
    for folder in (DATA, *inner):
        names = run.list(folder, ".parquet")
        if names:
            found[folder] = names
    return found
