import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.lam import check_grid, lam_to_pct, num_denoising_steps, pct_to_lam

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


@pytest.mark.parametrize(("lam", "total", "steps"), [(0.9, 50, 5), (0.8, 50, 10), (0.9, 30, 3), (0.8, 30, 6), (0.7, 10, 3)])
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
        ([1.0, 0.3, 0.3, -1, 0.99], 30, ["real image", "given twice", "allowed are", "leaves no step"]),
    ],
)
def test_a_grid_is_refused_with_every_reason(lams, total, words):
    problems = check_grid(lams, total)
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


@given(st.sets(st.integers(0, 99), min_size=1), st.integers(100, 1000))
def test_a_grid_with_a_step_at_every_level_is_accepted(pcts, total):
    assert check_grid([pct_to_lam(p) for p in pcts], total) == []
