import pytest

from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.controller import LocalController
from discl_ray.curriculum.progress import Progress, to_metrics

LEVELS = (0, 50, 100)


def local(strategy: str = "diverse_to_specific", epochs: int = 3) -> LocalController:
    return LocalController(CurriculumConfig(strategy=strategy, epochs=epochs), LEVELS, seed=5)


def test_it_refuses_what_it_has_no_past_for_and_is_rebuilt_from_a_state() -> None:
    first = local()
    for epoch in (1, 2):
        assert first.choose(epoch) is not None
        assert first.record(epoch, {"loss": 1.0 / epoch})
    empty = local()
    assert empty.choose(3) is None
    assert empty.record(3, {}) is False
    empty.load(first.state())
    assert empty.choose(3) == first.choose(3)
    assert empty.state() == first.state()


def test_recording_an_earlier_epoch_forgets_the_later_ones() -> None:
    controller = local("all_level")
    for epoch in (1, 2, 3):
        controller.record(epoch, {"loss": 0.0})
    controller.record(2, {"loss": 5.0})
    assert controller.history == {1: {"loss": 0.0}, 2: {"loss": 5.0}}


@pytest.mark.timeout(120)
def test_the_actor_that_was_killed_is_rebuilt_and_chooses_the_same(ray_local) -> None:
    import ray

    from discl_ray.curriculum.actor import ActorController, start_controller

    config = CurriculumConfig(strategy="adaptive", epochs=3)
    handle = start_controller("test-kill", config, LEVELS, 5)
    assert ray.get(ray.get_actor("curriculum-test-kill").state.remote()) == {"history": {}}
    controller, plain = ActorController(handle), LocalController(config, LEVELS, 5)
    controller.load({"history": {}})
    for epoch in (1, 2, 3, 4):
        progress = {level: Progress(((epoch * 7 + level) % 11) / 50, 0.03) for level in LEVELS}
        assert controller.choose(epoch).explore is (epoch <= 3)
        choice = controller.choose(epoch, progress)
        assert choice == plain.choose(epoch, progress)
        metrics = {"loss": float(epoch), "lam": choice.lam, **to_metrics(progress)}
        controller.record(epoch, metrics)
        plain.record(epoch, metrics)
        ray.kill(handle, no_restart=False)
    assert controller.state() == plain.state()
    ray.kill(handle)
