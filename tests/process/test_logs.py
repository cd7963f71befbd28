import logging
import sys

import pytest

from discl_ray.process.logs import PACKAGE, Lines, show
from discl_ray.process.progress import Progress, end_line

log = logging.getLogger(f"{PACKAGE}.somewhere")


@pytest.fixture(autouse=True)
def package():
    """The package's logger as it was before."""
    logger = logging.getLogger(PACKAGE)
    before = logger.handlers[:], logger.level, logger.propagate
    yield logger
    logger.handlers[:], logger.level, logger.propagate = before
    logger.setLevel(before[1])


def test_records_are_lines_indented_by_two_and_warnings_say_so(capsys):
    show()
    log.info("%d images", 3)
    log.warning("cut short")
    log.debug("not shown")
    assert capsys.readouterr().out == "  3 images\n  warning: cut short\n"


def test_showing_twice_prints_once(capsys, package):
    show()
    show()
    log.info("once")
    assert capsys.readouterr().out == "  once\n"
    assert sum(isinstance(handler, Lines) for handler in package.handlers) == 1


def test_a_line_of_progress_is_ended_before_a_record(capsys):
    show()
    Progress(2, "images", live=True).advance(1)
    log.info("a record")
    end_line()
    printed = capsys.readouterr().out
    assert printed.startswith("\r  1/2 images")
    assert printed.endswith("\n  a record\n")


def test_an_output_that_cannot_be_written_ends_the_job(monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        def flush(self): ...

    show()
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="No space left"):
        log.info("lost")
