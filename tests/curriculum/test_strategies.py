"""Algorithms 1 and 2 and their neighbours, against sequences worked out by hand."""

import sys
import types

import pytest

from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.progress import Progress
from discl_ray.curriculum.strategies import (
    AS_IS,
    EXPLORE,
    REAL_STAGE,
    STRATEGIES,
    Choice,
    Situation,
    curriculum_levels,
    stages,
)
from discl_ray.errors import ConfigError, IntegrityError

PAPER = (0, 10, 30, 50, 100)


def choose(
    name: str, epoch: int, curriculum_epochs: int = 60, levels: tuple[int, ...] = PAPER, **more
) -> Choice:
    settings = {key: more.pop(key) for key in ("fixed_lam", "rule", "apply") if key in more}
    config = CurriculumConfig(strategy=name, epochs=curriculum_epochs, **settings)
    return STRATEGIES[name](Situation(epoch=epoch, levels=levels, config=config, seed=3, **more))


def levels_of(
    name: str, epochs: int, curriculum_epochs: int, levels: tuple[int, ...] = PAPER
) -> list[tuple[int, ...]]:
    return [choose(name, e, curriculum_epochs, levels).levels for e in range(1, epochs + 1)]


def test_diverse_to_specific_is_algorithm_1_on_the_papers_imagenet_lt_schedule() -> None:
    expected = [(0,)] * 12 + [(10,)] * 12 + [(30,)] * 12 + [(50,)] * 12 + [(100,)] * 17
    assert levels_of("diverse_to_specific", 65, 60) == expected


def test_specific_to_diverse_is_the_same_backwards_and_then_real() -> None:
    expected = (
        [(100,)] * 12 + [(50,)] * 12 + [(30,)] * 12 + [(10,)] * 12 + [(0,)] * 12 + [(100,)] * 5
    )
    assert levels_of("specific_to_diverse", 65, 60) == expected


def test_levels_that_do_not_divide_the_epochs_still_all_come_in_order() -> None:
    assert levels_of("diverse_to_specific", 8, 7) == [
        (0,),
        (0,),
        (10,),
        (30,),
        (30,),
        (50,),
        (100,),
        (100,),
    ]


def test_all_level_draws_from_every_level_and_then_sees_real_images() -> None:
    assert levels_of("all_level", 3, 2) == [PAPER, PAPER, (100,)]
    assert Choice(levels=PAPER).synthetic == (0, 10, 30, 50)


@pytest.mark.parametrize(
    ("name", "hard", "after"),
    [
        ("diverse_to_specific", True, REAL_STAGE),
        ("specific_to_diverse", True, REAL_STAGE),
        ("all_level", True, REAL_STAGE),
        ("easy_to_hard", False, AS_IS),
        ("random", False, AS_IS),
        ("text_only", False, Choice(levels=(0,), hard=False)),
        ("fixed", False, Choice(levels=(30,), hard=False)),
        ("duplicated", True, REAL_STAGE),
        ("real_only", True, AS_IS),
    ],
)
def test_hard_real_images_stand_beside_the_synthetic_ones_where_the_paper_has_them(
    name, hard, after
) -> None:
    assert choose(name, 1, 4, fixed_lam=0.3).hard is hard
    assert choose(name, 5, 4, fixed_lam=0.3) == after


def test_easy_to_hard_has_the_order_of_diverse_to_specific() -> None:
    assert levels_of("easy_to_hard", 15, 15, (50, 70, 90, 100)) == levels_of(
        "diverse_to_specific", 15, 15, (50, 70, 90, 100)
    )


def test_random_draws_every_level_and_depends_on_seed_and_epoch_alone() -> None:
    drawn = levels_of("random", 60, 60)
    assert {level for (level,) in drawn} == set(PAPER)
    assert drawn == levels_of("random", 60, 60)


def test_real_only_never_asks_for_a_synthetic_image() -> None:
    assert {choose("real_only", e, 3) for e in range(1, 9)} == {AS_IS}
    assert REAL_STAGE.synthetic == ()


MEASURED = {
    50: Progress(0.02, 0.01),
    70: Progress(0.05, 0.01),
    90: Progress(0.045, 0.01),
    100: Progress(0.01, 0.02),
}
"""70 leads 90 by 0.005 / sqrt(0.0002) = 0.354 standard errors."""


def test_adaptive_is_algorithm_2_measure_then_argmax_then_all_real() -> None:
    assert choose("adaptive", 1, 15) == EXPLORE
    taken = choose("adaptive", 1, 15, progress=MEASURED, rule="strict")
    assert (taken.levels, taken.hard, taken.explore) == ((70,), False, False)
    assert taken.lead == pytest.approx(0.3535534)
    assert choose("adaptive", 16, 15) == AS_IS
    with pytest.raises(IntegrityError, match="no probe"):
        choose("adaptive", 2, 15, progress={})


@pytest.mark.parametrize(
    ("rule", "previous", "taken"),
    [("strict", 90, 70), ("margin", 90, 90), ("margin", 50, 70), ("margin", None, 70)],
)
def test_the_margin_rule_keeps_a_level_while_the_lead_is_under_one_standard_error(
    rule, previous, taken
) -> None:
    # 70 leads 50 by 2.1 standard errors, 90 by 0.35
    assert choose("adaptive", 4, 15, progress=MEASURED, rule=rule, previous=previous).levels == (
        taken,
    )


def test_applied_in_the_next_epoch_the_choice_is_that_of_the_measurement_before() -> None:
    now = {50: Progress(0.3, 0.0), 70: Progress(0.1, 0.0)}
    assert choose(
        "adaptive", 2, 15, progress=now, past=MEASURED, apply="next", rule="strict"
    ).levels == (70,)
    assert choose("adaptive", 1, 15, progress=now, apply="next").levels == (100,)


def test_levels_are_those_of_the_configuration_and_have_to_be_there() -> None:
    spectrum = (0, 50, 70, 90)
    assert curriculum_levels(CurriculumConfig(), spectrum) == (0, 50, 70, 90, 100)
    assert curriculum_levels(CurriculumConfig(levels=(0.9, 1.0, 0.5)), spectrum) == (50, 90, 100)
    assert curriculum_levels(CurriculumConfig(strategy="text_only", levels=(0.5,)), spectrum) == (
        50,
        100,
    )
    for config, words in (
        (
            CurriculumConfig(levels=(0.3,)),
            r"curriculum\.levels: no image was made at λ = 0\.3; there are 0, 0\.5",
        ),
        (
            CurriculumConfig(strategy="fixed", fixed_lam=0.4),
            r"curriculum\.fixed_lam: no image was made at λ = 0\.4",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            curriculum_levels(config, spectrum)
    with pytest.raises(ConfigError, match="text_only"):
        curriculum_levels(CurriculumConfig(strategy="text_only"), (50, 90))


def no_arguments():
    return AS_IS


def ends(at):
    sys.exit()


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (lambda at: Choice(levels=[50]), r"chose levels = \[50\], a list; a tuple is needed"),
        (lambda at: Choice(levels=50), "chose levels = 50, a int; a tuple is needed"),
        (lambda at: None, r"returned a NoneType; a discl_ray\.Choice is needed"),
        (lambda at: 1 / 0, r"raised ZeroDivisionError: .*test_strategies\.py, line"),
        (no_arguments, r"raised TypeError: .*defined in .*test_strategies\.py, line"),
        (ends, "ended the program"),
    ],
)
def test_what_is_wrong_with_a_strategy_of_ones_own_is_named(monkeypatch, own, why):
    module = types.ModuleType("strategy_of_test")
    module.own = own
    monkeypatch.setitem(sys.modules, "strategy_of_test", module)
    config = CurriculumConfig(strategy="strategy_of_test:own")
    with pytest.raises(
        ConfigError, match=f"curriculum.strategy = 'strategy_of_test:own', epoch 1: {why}"
    ):
        stages(config, PAPER, seed=0, epochs=2)
