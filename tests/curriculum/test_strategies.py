from discl_ray.curriculum.strategies import AS_IS, REAL_STAGE, STRATEGIES, Choice

PAPER = (0, 10, 30, 50, 100)


def levels_of(name: str, epochs: int, curriculum_epochs: int) -> list[tuple[int, ...]]:
    return [STRATEGIES[name](e, PAPER, curriculum_epochs).levels for e in range(1, epochs + 1)]


def test_diverse_to_specific_is_algorithm_1_on_the_papers_imagenet_lt_schedule() -> None:
    expected = [(0,)] * 12 + [(10,)] * 12 + [(30,)] * 12 + [(50,)] * 12 + [(100,)] * 17
    assert levels_of("diverse_to_specific", 65, 60) == expected


def test_levels_that_do_not_divide_the_epochs_still_all_come_in_order() -> None:
    assert levels_of("diverse_to_specific", 8, 7) == [(0,), (0,), (10,), (30,), (30,), (50,), (100,), (100,)]


def test_all_level_draws_from_every_level_and_then_sees_real_images() -> None:
    assert levels_of("all_level", 3, 2) == [PAPER, PAPER, (100,)]
    assert Choice(levels=PAPER).synthetic == (0, 10, 30, 50)


def test_real_only_never_asks_for_a_synthetic_image() -> None:
    assert {STRATEGIES["real_only"](e, PAPER, 3) for e in range(1, 9)} == {AS_IS}
    assert REAL_STAGE.synthetic == ()
