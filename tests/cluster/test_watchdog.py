import signal
import time

import pytest

from discl_ray.cluster.watchdog import Progress, Pulse, Sight, Watchdog, sight_of
from discl_ray.errors import ModelError, SetupError


def watch(sights, capsys, *, warning_s=0.2, limit_s=0.6, seconds=3.0):
    """Runs a watchdog over a sequence of sights; the last one stays. Returns what it printed and whether it gave up."""
    rest = list(sights)
    gave_up = ""
    try:
        with Watchdog(
            lambda: rest.pop(0) if len(rest) > 1 else rest[0], warning_s=warning_s, limit_s=limit_s
        ):
            time.sleep(seconds)
    except SetupError as error:
        gave_up = str(error)
    return capsys.readouterr().out, gave_up


def test_a_line_of_progress_in_a_log_ends_with_its_last_word(capsys):
    progress = Progress(4, "images")
    progress.advance(2)
    progress.advance(2, "· 1 failed")
    progress.close()
    first, second = capsys.readouterr().out.split("\n")[:2]
    assert first == first.rstrip()
    assert "2/4 images" in first
    assert second.endswith("left · 1 failed")


def test_the_watchdog_names_what_it_waits_for_then_gives_up(capsys):
    printed, gave_up = watch(
        [Sight(1, "generator 7 on a: working for 9 s", {"generator 7 on a": "working"}, False)],
        capsys,
    )
    assert "waiting for generator 7 on a" in printed
    assert printed.count("generator 7 on a may hang: working") == 1
    assert "gave up after 1 s without progress, waiting for generator 7 on a" in gave_up


def test_the_watchdog_lets_a_compiler_work_as_long_as_it_lives_but_says_so(capsys):
    printed, gave_up = watch(
        [Sight(1, "generator 7 on a: compiling or taking its first step", {}, True)],
        capsys,
        seconds=1.5,
    )
    assert "waiting for generator 7 on a: compiling" in printed
    assert gave_up == ""


def test_the_watchdog_is_silent_while_a_job_gets_on(capsys):
    printed, gave_up = watch([Sight(i, "x", {}, False) for i in range(100)], capsys, seconds=1.5)
    assert (printed, gave_up) == ("", "")


def test_a_worker_that_stands_still_among_others_is_named_and_one_that_loads_or_idles_is_not():
    pulse = Pulse()
    for name, phase in (
        ("a", "working"),
        ("b", "working"),
        ("c", "starting"),
        ("d", "idle"),
        ("e", "loading"),
    ):
        pulse.beat(name, {"phase": phase, "images": 3, "total_rows": 1})
    time.sleep(1.2)
    pulse.beat("a", {"phase": "working", "images": 3, "total_rows": 2})
    for name, phase in (("b", "working"), ("c", "starting")):
        pulse.beat(name, {"phase": phase, "images": 3, "total_rows": 1})
    sight = sight_of(pulse.read(), 0, silent_s=1.0)
    assert list(sight.silent) == ["b"]
    assert "3 images made, no step for 1 s" in sight.silent["b"]
    assert sight.patient
    assert "c: compiling or taking its first step" in sight.waiting_for
    assert "d" not in sight.waiting_for.split(": ")[0::2]


def test_a_compiler_that_is_not_heard_of_any_more_is_named():
    signs = {"a": {"phase": "starting", "unchanged_s": 200.0, "unheard_s": 150.0}}
    sight = sight_of(signs, 0, silent_s=120)
    assert "not heard of for 150 s" in sight.silent["a"]
    assert not sight.patient


def test_the_watchdog_ends_a_job_that_was_started_deaf_to_interrupts(capsys):
    before = signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # as a shell script does for what it starts in the background
    try:
        _, gave_up = watch([Sight(1, "nothing", {}, False)], capsys)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "gave up" in gave_up


def test_a_worker_that_cannot_start_ends_the_job_with_its_reason():
    sight = Sight(1, "a", {}, True, refusal="scorer.model = 'x': cut short")
    with (
        pytest.raises(ModelError, match="cut short"),
        Watchdog(lambda: sight, warning_s=0.2, limit_s=None),
    ):
        time.sleep(3)
