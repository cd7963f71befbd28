"""Is this machine fit for the job? Prints one line a check: ok, or the problem and its remedy.

    discl-ray doctor --config digits_lt generator.model=/models/sd15
    python jobs/doctor.py --config conf/digits_lt.yaml generator.model=/models/sd15

Starts, writes and downloads nothing. Exit code 0 if all is well, else 2.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from discl_ray.doctor import examine
from discl_ray.process.calls import next_command


def examine_all(files: Sequence[str], overrides: Sequence[str]) -> int:
    """Prints every finding; the number of problems."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # a model that is not here yet is a finding, not a download
    problems = 0
    for finding in examine(files, overrides):
        print(finding, flush=True)
        problems += not (finding.ok or finding.skipped)
    plural = "s" if problems > 1 else ""
    well = f"all is well · next: {next_command('generate')}"
    print(f"{problems} problem{plural}" if problems else well)
    return problems
