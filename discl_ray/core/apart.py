"""A check that needs PyTorch, made by a driver that has not loaded it: in a process of its own.

Where the libraries are loaded already (a worker, the doctor) the check runs here.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from discl_ray.errors import ModelError

HEAVY = "torch"
"""A process that has loaded it may load what builds on it."""


def check_apart(check: str, *arguments: str | None) -> None:
    """Calls `check`, written module:function, with plain arguments; it returns nothing.

    Raises ModelError as the check does, and if the check itself breaks.
    """
    if HEAVY in sys.modules:
        _named(check)(*arguments)
        return
    command = [sys.executable, "-m", "discl_ray.core.apart", check, json.dumps(arguments)]
    environment = {
        **os.environ,
        # It imports what this process can import.
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # Nothing is computed: a context on the GPU would only take its memory.
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment, check=False
    )
    if done.returncode == 0:
        return
    said = done.stdout.strip().splitlines()
    if done.returncode == ModelError.exit_code and said:
        raise ModelError(json.loads(said[-1]))
    last_words = done.stderr.strip().splitlines()
    why = last_words[-1] if last_words else f"exit code {done.returncode}"
    what = " ".join(filter(None, arguments))
    raise ModelError(f"{what}: cannot be checked ({why})")


def _named(check: str) -> Callable[..., Any]:
    """The function of a name `module:function`."""
    name_of_module, _, name = check.partition(":")
    module = importlib.import_module(name_of_module)
    return getattr(module, name)


def main(check: str, arguments: str) -> int:
    """The other process: its last line of output is the refusal, as JSON."""
    try:
        _named(check)(*json.loads(arguments))
    except ModelError as error:
        print(json.dumps(str(error)), flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
