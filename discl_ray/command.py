"""What every job's command line shares: `--config`, `key=value`, errors as one report, exit codes.

Exit codes: 0 done, 1 failed underway (what is committed stays), 2 refused before any work, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from types import FrameType

from discl_ray.config import Config, load_config
from discl_ray.errors import DisclError
from discl_ray.runtime import check_versions

DEFAULT = "conf/digits_lt.yaml"


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    print(f"stopped; resume with: {sys.executable} {' '.join(sys.argv)}", file=sys.stderr, flush=True)
    raise SystemExit(143)


def run_job(description: str | None, job: Callable[[Config], None]) -> None:
    """Parses the command line, loads the configuration and runs a job; ends the process with its exit code."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    help_ = f"YAML file; several are laid one over the other (default: {DEFAULT})"
    parser.add_argument("--config", action="append", metavar="FILE", help=help_)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, e.g. plan.replicas=4")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        check_versions()
        job(load_config(args.config or DEFAULT, args.overrides))
    except DisclError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
