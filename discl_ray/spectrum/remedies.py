"""What to do about a spectrum's files that are gone or damaged: whole commands."""

from __future__ import annotations

from discl_ray.core.run_directory import CONFIG, MANIFEST, PLAN_FILE
from discl_ray.core.storage import Store
from discl_ray.process.calls import Call, advice

OWN = ("preview", "generate", "train")
"""Jobs whose configuration is the one of the spectrum they speak of; others go from seed to seed."""


def remake(run: Store) -> str:
    """ "run `...`": the command that makes what is missing of a spectrum, and again what is damaged."""
    if not _ours(run):
        return "let the tool that wrote it write it again"
    call = Call.this()
    recorded = run.local and run.local / CONFIG
    its_own = call.job in OWN and not any(word.startswith("spectrum.path=") for word in call.rest)
    if its_own or not recorded or not recorded.is_file():
        return advice("generate")
    return f"run `{call.command('generate', files=[str(recorded)], rest=[])}`"


def again(run: Store) -> str:
    """What to do about a file of a spectrum's folder that is gone or damaged."""
    return f"{remake(run)}, which makes it again" if _ours(run) else remake(run)


def images_again(run: Store) -> str:
    """What to do about a file with images, or the record of one."""
    return f"{remake(run)}, which makes its images again" if _ours(run) else remake(run)


def _ours(run: Store) -> bool:
    """Whether a folder was written here, and can be mended here."""
    return any(run.exists(name) for name in (CONFIG, PLAN_FILE, MANIFEST)) or not run.folders()
