import pytest
import ray

from discl_ray.curriculum.actor import ActorController, actor_name, start_controller
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.controller import LocalController
from discl_ray.curriculum.progress import Progress, to_metrics

LEVELS = (0, 50, 100)


@pytest.mark.timeout(120)
def test_the_actor_that_was_killed_is_rebuilt_and_chooses_the_same(ray_local) -> None:
    config = CurriculumConfig(strategy="adaptive", epochs=3)
    handle = start_controller("test-kill", config, LEVELS, 5)
    assert ray.get(ray.get_actor(actor_name("test-kill")).state.remote()) == {"history": {}}
    controller, plain = ActorController(handle), LocalController(config, LEVELS, 5)
    controller.load({"history": {}})
    for epoch in (1, 2, 3, 4):
        progress = {level: Progress(((epoch * 7 + level) % 11) / 50, 0.03) for level in LEVELS}
        assert controller.choose(epoch).explore is (epoch <= 3)
        choice = controller.choose(epoch, progress)
        assert choice == plain.choose(epoch, progress)
        metrics = {"loss": float(epoch), "lam_pct": choice.lam_pct, **to_metrics(progress)}
        controller.record(epoch, metrics)
        plain.record(epoch, metrics)
        ray.kill(handle, no_restart=False)
    assert controller.state() == plain.state()
    ray.kill(handle)
