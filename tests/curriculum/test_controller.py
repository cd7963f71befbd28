import pytest

from discl_ray.curriculum.controller import LocalController

LEVELS = (0, 50, 100)


def test_it_refuses_what_it_has_no_past_for_and_is_rebuilt_from_a_state() -> None:
    first = LocalController("diverse_to_specific", LEVELS, 3)
    for epoch in (1, 2):
        assert first.choose(epoch) is not None
        assert first.record(epoch, {"loss": 1.0 / epoch})
    empty = LocalController("diverse_to_specific", LEVELS, 3)
    assert empty.choose(3) is None
    assert empty.record(3, {}) is False
    empty.load(first.state())
    assert empty.choose(3) == first.choose(3)
    assert empty.state() == first.state()


def test_recording_an_earlier_epoch_forgets_the_later_ones() -> None:
    controller = LocalController("all_level", LEVELS, 3)
    for epoch in (1, 2, 3):
        controller.record(epoch, {"loss": 0.0})
    controller.record(2, {"loss": 5.0})
    assert controller.history == {1: {"loss": 0.0}, 2: {"loss": 5.0}}


@pytest.mark.timeout(120)
def test_the_actor_that_was_killed_is_rebuilt_and_chooses_the_same(ray_local) -> None:
    import ray

    from discl_ray.curriculum.actor import ActorController, start_controller

    handle = start_controller("test-kill", "diverse_to_specific", LEVELS, 3)
    controller = ActorController(handle)
    controller.load({"history": {}})
    local = LocalController("diverse_to_specific", LEVELS, 3)
    for epoch in (1, 2, 3, 4):
        assert controller.choose(epoch) == local.choose(epoch)
        controller.record(epoch, {"loss": float(epoch)})
        local.record(epoch, {"loss": float(epoch)})
        ray.kill(handle, no_restart=False)
    assert controller.state() == local.state()
    ray.kill(handle)
