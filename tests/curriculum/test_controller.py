from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.controller import LocalController
from discl_ray.curriculum.progress import Progress, lead_in_se
from discl_ray.curriculum.strategies import Choice

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


def test_the_previous_level_is_read_from_records_of_today_and_of_earlier_versions() -> None:
    config = CurriculumConfig(strategy="adaptive", epochs=3)
    leads = {0: Progress(0.02, 0.05), 50: Progress(0.03, 0.05), 100: Progress(0.0, 0.05)}
    for record in ({"lam_pct": 0}, {"lam": 0.0}):
        controller = LocalController(config, LEVELS, seed=5)
        controller.record(1, record)
        assert controller.choose(2, leads) == Choice(
            levels=(0,), hard=False, lead=lead_in_se(leads[50], leads[0])
        )
