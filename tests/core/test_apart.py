import subprocess
import sys

import pytest

from discl_ray.core.apart import check_apart
from discl_ray.errors import ModelError

DRIVER = """
import sys
from discl_ray.core.apart import check_apart
from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
try:
    check_apart({check!r}, {folder!r}, None)
    print("passed")
except ModelError as error:
    print(error)
assert "torch" not in sys.modules
"""


def refused(folder, variant):
    raise ModelError(f"{folder}: line one\nline {variant}")


def broken(folder, variant):
    raise RuntimeError(f"a fault of the check's own at {folder}")


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("tests.core.test_apart:refused", "é: line one\nline None"),
        (
            "tests.core.test_apart:broken",
            "é: cannot be checked (RuntimeError: a fault of the check's own at é)",
        ),
        ("builtins:print", "passed"),
    ],
)
def test_another_process_says_what_the_check_says_and_the_driver_stays_light(
    check, said, pytestconfig
):
    script = DRIVER.format(check=check, folder="é")
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=pytestconfig.rootpath,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr


def test_where_the_libraries_are_loaded_the_check_runs_here():
    import torch  # noqa: F401

    with pytest.raises(ModelError, match="line None"):
        check_apart("tests.core.test_apart:refused", "x", None)
