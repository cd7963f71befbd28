"""Is this machine fit for the job? Prints one line a check: ok, or the problem and its remedy.

    python jobs/doctor.py --config conf/digits_lt.yaml generator.model=/models/sd15

Starts, writes and downloads nothing. Exit code 0 if all is well, else 2.
"""

from discl_ray.process.stopping import listen

if __name__ == "__main__":
    listen()  # before the imports, which take their time

import os

from discl_ray.cli import arguments, finished, prepare_terminal
from discl_ray.doctor import examine
from discl_ray.process.calls import DEFAULT, next_command


def main() -> None:
    prepare_terminal()
    asked = arguments(__doc__)
    os.environ["HF_HUB_OFFLINE"] = "1"  # a model that is not here yet is a finding, not a download
    problems = 0
    for finding in examine(asked.config or [DEFAULT], asked.overrides):
        print(finding, flush=True)
        problems += not (finding.ok or finding.skipped)
    print(
        f"{problems} problem{'s' * (problems > 1)}"
        if problems
        else f"all is well · next: {next_command('generate')}"
    )
    raise SystemExit(2 if problems else 0)


if __name__ == "__main__":
    finished(main)
