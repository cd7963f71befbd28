"""What to do about a spectrum's files that are gone or damaged: whole commands."""

from __future__ import annotations

from discl_ray.core.run_directory import CONFIG, MANIFEST, PLAN_FILE, SHARDS_FILE
from discl_ray.core.storage import Store
from discl_ray.process.calls import Call, advice

COMMITS = "commits"
"""The folder of commit records."""

DATA = "spectrum"
"""The folder of the images."""

PREFIX = "generate-"
"""How the name of a run's spectrum begins; a hash of all that decides it follows."""

OWN_JOBS = ("preview", "generate", "verify", "train")
"""Jobs whose configuration is the one of the spectrum they report on; others go through seeds."""

OWN_FILES = {PLAN_FILE, SHARDS_FILE, MANIFEST}
"""A folder with one of them was written by this package. Many tools write a `config.yaml`."""


def is_of_another_tool(run: Store) -> bool:
    """Whether a folder holds images and nothing of ours; every file counts as committed then.

    On an object store that is one request for our own folders, three for others.
    """
    if not OWN_FILES.isdisjoint(run.list()):
        return False
    if run.list(COMMITS, ".json"):
        return False
    if run.list(DATA, ".parquet"):
        return True
    return bool(run.broken_links(DATA, ".parquet"))


def remake(run: Store) -> str:
    """ "run `...`": the command that makes what is missing or damaged in a spectrum."""
    if is_of_another_tool(run):
        return "let the tool that wrote it write it again"
    return _run_job(run, "generate")


def _run_job(run: Store, job: str) -> str:
    """ "run `...`": the command of a job for a spectrum, where it lies."""
    call = Call.this()
    by_path = any(word.startswith("spectrum.path=") for word in call.rest)
    recorded = run.local and run.local / CONFIG
    if (call.job in OWN_JOBS and not by_path) or not recorded or not recorded.is_file():
        return advice(job)
    if job == "verify":
        return f"run `{call.command(job, files=[], rest=[f'spectrum.path={run.base}'])}`"
    if not run.name.startswith(PREFIX):
        return f"copy it again, under the name that {PREFIX[:-1]} gave it"
    # the recorded root and name are those of the folder it may be a copy of
    place = [f"run.root={run.parent.parent.base}", f"run.name={run.parent.name}"]
    return f"run `{call.command(job, files=[str(recorded)], rest=place)}`"


def find_damage(run: Store) -> str:
    """What to do about a file with images that has its committed size, and cannot be read.

    A resumed run compares sizes and footers and would not find it.
    """
    if is_of_another_tool(run):
        return remake(run)
    return f"{_run_job(run, 'verify')}, which finds all that is damaged and has it made again"


def again(run: Store) -> str:
    """What to do about a file of a spectrum's folder that is gone or damaged."""
    return _which_makes(run, "it")


def images_again(run: Store) -> str:
    """What to do about a file with images, or the record of one."""
    return _which_makes(run, "its images")


def _which_makes(run: Store, what: str) -> str:
    if is_of_another_tool(run):
        return remake(run)
    return f"{remake(run)}, which makes {what} again"
