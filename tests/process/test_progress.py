import logging

import pytest

from discl_ray.process.progress import Progress, end_line
from tests.support.clock import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="discl_ray")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_line_says_count_rate_and_time_left(clock, lines):
    progress = Progress(4, "images", clock=clock)
    clock.time = 2.0
    progress.advance(1, "· 1 failed")
    assert lines() == ["1/4 images · 0.5/s · about 6 s left · 1 failed"]


def test_without_a_terminal_lines_come_at_intervals_and_at_the_end(clock, lines):
    progress = Progress(100, "images", clock=clock)
    for second in range(1, 101):
        clock.time = float(second)
        progress.advance(1)
    progress.close()
    counted = [int(line.split("/")[0]) for line in lines()]
    assert counted == [*range(1, 100, 10), 100]


def test_a_long_job_gets_lines_less_often(clock, lines):
    progress = Progress(10_000, "images", clock=clock)
    for second in range(0, 7200, 10):
        clock.time = float(second)
        progress.advance(1)
    assert 60 < len(lines()) < 90


def test_on_a_terminal_one_line_is_rewritten(clock, lines, capsys):
    progress = Progress(2, "images", live=True, clock=clock)
    progress.advance(1, "· a long note")
    progress.advance(1)
    progress.close()
    printed = capsys.readouterr().out
    assert printed.count("\r  ") == 2
    assert printed.count("\n") == 1
    assert printed.endswith("\n")
    first, second = printed.split("\r")[1:]
    assert len(second.rstrip("\n")) >= len(first.rstrip())  # covers the longer one before
    assert lines() == []


def test_an_open_line_is_ended_once_before_something_else_is_printed(clock, capsys):
    progress = Progress(2, "images", live=True, clock=clock)
    progress.advance(1)
    capsys.readouterr()
    end_line()
    end_line()
    progress.close()
    assert capsys.readouterr().out == "\n"
