import pytest

from discl_ray.cluster.heartbeat import (
    GeneratorSigns,
    Heartbeat,
    Report,
    WorkerSigns,
    observe,
    report_loading,
    snapshot_of,
)
from discl_ray.errors import ModelError
from tests.support.clock import Clock

SIGNS = GeneratorSigns(
    phase="working", images=1, total_rows=2, steps=3, seconds=4.0, micro_batch=5, peak_bytes=6
)


@pytest.fixture
def clock():
    return Clock(100.0)


@pytest.fixture
def heartbeat(clock):
    return Heartbeat(clock)


class Remote:
    """Stands for an actor's handle: `handle.method.remote(...)` calls the method here."""

    def __init__(self, actor):
        self._actor = actor

    def __getattr__(self, name):
        method = getattr(self._actor, name)
        return type("Method", (), {"remote": staticmethod(method)})


def working(images=3, rows=1):
    return WorkerSigns(phase="working", images=images, total_rows=rows)


def test_a_report_ages_and_what_does_not_move_is_unchanged_for_longer(heartbeat, clock):
    heartbeat.report("a", working())
    clock.time += 5
    heartbeat.report("a", working())
    clock.time += 2
    assert heartbeat.read() == {"a": Report(working(), unchanged_s=7.0, unheard_s=2.0)}


@pytest.mark.parametrize(
    "moved", [working(rows=2), working(images=4), WorkerSigns(phase="idle", images=3, total_rows=1)]
)
def test_a_step_an_image_or_another_phase_is_progress(heartbeat, clock, moved):
    heartbeat.report("a", working())
    clock.time += 5
    heartbeat.report("a", moved)
    assert heartbeat.read()["a"].unchanged_s == 0.0


def test_only_a_worker_that_stands_still_is_stalled(heartbeat, clock):
    heartbeat.report("moves", working())
    heartbeat.report("stands", working())
    heartbeat.report("compiles", WorkerSigns(phase="starting"))
    heartbeat.report("rests", WorkerSigns(phase="idle"))
    heartbeat.report("loads", WorkerSigns(phase="loading"))
    clock.time += 200
    heartbeat.report("moves", working(rows=2))
    heartbeat.report("stands", working())
    heartbeat.report("compiles", WorkerSigns(phase="starting"))
    snapshot = snapshot_of(heartbeat.read(), 0, stall_s=120.0)
    assert snapshot.stalled == {"stands": "working, 3 images made, no step for 200 s"}
    assert snapshot.preparing
    assert snapshot.waiting_for.split("; ") == [
        "moves: working for 0 s",
        "stands: working for 200 s",
        "compiles: compiling or taking its first step for 200 s",
        "loads: loading its weights for 200 s",
    ]


def test_a_compiling_worker_that_is_not_heard_of_is_stalled():
    reports = {"a": Report(WorkerSigns(phase="starting"), unchanged_s=200.0, unheard_s=150.0)}
    snapshot = snapshot_of(reports, 0, stall_s=120)
    assert "not heard of for 150 s (Ray restarts it if it has died)" in snapshot.stalled["a"]
    assert not snapshot.preparing


def test_before_any_report_the_workers_are_waited_for():
    snapshot = snapshot_of({}, 0, stall_s=120)
    assert snapshot.waiting_for == "the workers to start; see `ray status`"
    assert not snapshot.preparing


def test_the_token_changes_with_the_drivers_count_and_with_the_workers_steps(heartbeat):
    heartbeat.report("a", working())
    first = snapshot_of(heartbeat.read(), 0, stall_s=1)
    assert snapshot_of(heartbeat.read(), 0, stall_s=9).token == first.token
    assert snapshot_of(heartbeat.read(), 1, stall_s=1).token != first.token
    heartbeat.report("a", working(rows=2))
    assert snapshot_of(heartbeat.read(), 0, stall_s=1).token != first.token


def test_a_worker_reports_that_it_loads(heartbeat):
    with report_loading(Remote(heartbeat), "a"):
        (report,) = heartbeat.read().values()
        assert report.signs == WorkerSigns(phase="loading")
    assert heartbeat.refusal() is None


def test_a_worker_that_cannot_load_its_model_reports_why_before_it_raises(heartbeat):
    with pytest.raises(ModelError), report_loading(Remote(heartbeat), "a", wait_s=0.0):
        raise ModelError("scorer.model = 'x': cut short")
    assert heartbeat.refusal() == "scorer.model = 'x': cut short"


def test_without_a_driver_a_worker_loads_and_fails_by_itself():
    with pytest.raises(ModelError, match="cut short"), report_loading(None, "a"):
        raise ModelError("cut short")


@pytest.mark.slow
def test_the_driver_observes_a_ray_actor():
    import ray

    from discl_ray.cluster.session import ray_session, start_beside_driver

    with ray_session(num_cpus=4, needs={}):
        actor = start_beside_driver(Heartbeat)
        with report_loading(actor, "a"):
            pass
        actor.report.remote("b", SIGNS)
        actor.refuse.remote("cut short")
        reports = ray.get(actor.read.remote())
        snapshot = observe(actor, 0, stall_s=120.0)
    assert snapshot.waiting_for == "a: loading its weights for 0 s; b: working for 0 s"
    assert reports["b"].signs == SIGNS
    assert snapshot.refusal == "cut short"
