import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.lam import (
    check_grid,
    coinciding,
    lam_to_pct,
    num_denoising_steps,
    pct_to_lam,
    separating_steps,
)

percents = st.integers(0, 100)


@given(percents)
def test_percent_survives_the_way_over_the_float(pct):
    assert lam_to_pct(pct_to_lam(pct)) == pct


@given(percents, st.integers(1, 1000))
def test_steps_are_the_floor_of_the_exact_fraction(pct, total):
    steps = num_denoising_steps(pct, total)
    assert type(steps) is int
    assert steps * 100 <= total * (100 - pct) < (steps + 1) * 100


@given(percents, percents, st.integers(1, 1000))
def test_a_higher_level_never_takes_more_steps(a, b, total):
    low, high = sorted((a, b))
    assert num_denoising_steps(low, total) >= num_denoising_steps(high, total)


@given(st.integers(1, 1000))
def test_ends_of_the_scale(total):
    assert num_denoising_steps(0, total) == total
    assert num_denoising_steps(100, total) == 0


@pytest.mark.parametrize(
    ("lam", "total", "steps"),
    [(0.9, 50, 5), (0.8, 50, 10), (0.9, 30, 3), (0.8, 30, 6), (0.7, 10, 3)],
)
def test_no_step_is_lost_to_floats(lam, total, steps):
    assert num_denoising_steps(lam_to_pct(lam), total) == steps


def test_the_float_trap_is_real():
    assert int(50 * (1 - 0.9)) == 4  # what the integers avoid
    assert int(50 * (1 - 0.8)) == 9


@pytest.mark.parametrize("lam", [-0.01, 1.01, 0.305, 2, float("nan")])
def test_a_lam_between_percents_or_outside_is_refused(lam):
    with pytest.raises(ValueError, match=r"λ|NaN"):
        lam_to_pct(lam)


@pytest.mark.parametrize(
    ("lams", "total", "words"),
    [
        ([], 30, ["empty"]),
        ([0.3, 0.3], 30, ["given twice"]),
        ([1.0], 30, ["real image"]),
        ([0.9], 5, ["leaves no step"]),
        ([-0.1], 30, ["allowed are 0 to 1"]),
        ([0.123], 30, ["whole hundredths"]),
        ([0.0, 0.1, 0.3, 0.5], 4, ["λ = 0.3 and 0.5: equally many of 4 steps"]),
        ([0.5, 0.55, 0.0, 0.6], 3, ["λ = 0.5 and 0.55, 0.55 and 0.6: equally many of 3 steps"]),
        ([0.3, 0.5, 0.9], 4, ["λ = 0.9 leaves no step", "λ = 0.3 and 0.5"]),
        (
            [1.0, 0.3, 0.3, -1, 0.99],
            30,
            ["real image", "given twice", "allowed are", "leaves no step"],
        ),
    ],
)
def test_a_grid_is_refused_with_every_reason(lams, total, words):
    problems = check_grid(lams, total)
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


@given(st.sets(st.integers(0, 99), min_size=1), st.integers(100, 1000))
def test_a_grid_with_a_step_at_every_level_is_accepted(pcts, total):
    assert check_grid([pct_to_lam(p) for p in pcts], total) == []


@given(st.sets(st.integers(0, 99), min_size=1), st.integers(1, 1000))
def test_a_grid_is_accepted_if_every_level_has_its_own_number_of_steps(pcts, total):
    steps = [num_denoising_steps(p, total) for p in pcts]
    problems = check_grid([pct_to_lam(p) for p in pcts], total)
    assert (problems == []) == (0 not in steps and len(set(steps)) == len(steps))


@given(st.sets(st.integers(0, 99), min_size=1, max_size=8))
def test_the_smallest_number_that_separates_levels_does_and_none_below_does(pcts):
    least = separating_steps(pcts)
    for total in range(1, least + 1):
        separate = len({num_denoising_steps(p, total) for p in (*pcts, 100)}) == len(pcts) + 1
        assert separate == (total == least)
    assert coinciding(pcts, least) == []


def test_the_smallest_number_of_steps_is_named():
    (problem,) = check_grid([0, 0.1, 0.3, 0.5], 4)
    assert problem.endswith("the smallest number of steps that separates all levels is 5")
    (problem,) = check_grid([0.51, 0.52], 50)
    assert problem.endswith(
        f"is {separating_steps([51, 52])}, and from 50 up {separating_steps([51, 52], 50)}"
    )
    assert [separating_steps([51, 52], start) for start in (50, 99, 500)] == [52, 99, 500]
