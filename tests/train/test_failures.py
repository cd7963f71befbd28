import subprocess
import sys

import pytest

from discl_ray.errors import DisclError, IntegrityError
from discl_ray.train.failures import Final, reason_of


class Wrapped(Exception):
    """As Ray wraps an error: the cause is an attribute."""

    def __init__(self, text: str, **found: object) -> None:
        super().__init__(text)
        vars(self).update(found)


def test_the_reason_is_our_own_error_wherever_it_is() -> None:
    ours = IntegrityError("the table is damaged")
    assert reason_of(ours) == "the table is damaged"
    assert reason_of(Wrapped("pages", cause=ours)) == "the table is damaged"
    assert reason_of(Wrapped("pages", worker_failures={1: Wrapped("x", cause=ours)})) == str(ours)
    traceback = "Traceback:\n  line\ndiscl_ray.errors.DataError: cat.png is gone: look\n"
    assert reason_of(Exception(traceback)) == "cat.png is gone: look"


def test_the_reason_of_any_other_error_is_its_last_line() -> None:
    assert reason_of(ValueError("first\n\n  the  last\n")) == "the last"
    assert reason_of(KeyError()) == "KeyError"


def test_only_an_error_of_our_own_ends_a_run_at_once() -> None:
    Final().after_exception(None, {0: ValueError("a worker died")})
    with pytest.raises(DisclError, match="the loss is nan"):
        Final().after_exception(None, {0: ValueError("x"), 1: DisclError("the loss is nan")})


def test_ray_trains_controller_need_not_import_pytorch_to_end_a_run() -> None:
    script = "import sys, discl_ray.train.failures; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
