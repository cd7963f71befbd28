"""Is this machine fit for the job? Prints one line a check: ok, or the problem and its remedy.

    python jobs/doctor.py --config conf/digits_lt.yaml generator.model=/models/sd15

Starts, writes and downloads nothing. Exit code 0 if all is well, else 2.
"""

import argparse
import os

from discl_ray.command import DEFAULT
from discl_ray.doctor import examine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    help_ = f"YAML file; several are laid one over the other (default: {DEFAULT})"
    parser.add_argument("--config", action="append", metavar="FILE", help=help_)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, e.g. run.root=/shared/runs")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"  # a model that is not here yet is a finding, not a download
    problems = 0
    for finding in examine(args.config or [DEFAULT], args.overrides):
        print(finding, flush=True)
        problems += not (finding.ok or finding.skipped)
    print(f"{problems} problem{'s' * (problems > 1)}" if problems else "all is well · next: make generate")
    raise SystemExit(2 if problems else 0)


if __name__ == "__main__":
    main()
