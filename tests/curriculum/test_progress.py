import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.curriculum.progress import Progress, from_metrics, lead_in_se, most_progressed, progress_of, to_metrics

FIGURES = st.floats(0, 1, width=32)


def test_progress_is_the_mean_difference_and_its_error_is_that_of_the_sources_means() -> None:
    before = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    after = np.array([0.3, 0.4, 0.2, 0.3, 0.9, 0.1])
    level = np.array([50, 50, 50, 50, 90, 90])
    source = np.array(["a", "a", "b", "b", "a", "a"])
    found = progress_of(before, after, level, source)
    # at 50: differences .2 .2 -.1 -.1; two sources with means .2 and -.1, so mean .05 and SE .15
    assert found[50] == (pytest.approx(0.05), pytest.approx(0.15))
    assert found[90] == (pytest.approx(0.0), 0.0)  # one source has no error to speak of


@given(values=st.lists(st.tuples(FIGURES, FIGURES), min_size=2, max_size=20))
def test_with_a_source_each_the_error_is_the_usual_one_of_a_paired_mean(values) -> None:
    before, after = np.array(values).T
    found = progress_of(before, after, np.zeros(len(values), np.int64), np.arange(len(values)).astype(str))[0]
    difference = after - before
    assert found.mean == pytest.approx(difference.mean(), abs=1e-9)
    assert found.se == pytest.approx(difference.std(ddof=1) / np.sqrt(len(values)), abs=1e-9)


def test_of_equals_the_lowest_level_is_taken_and_the_lead_is_over_the_second() -> None:
    assert most_progressed({90: Progress(0.1, 0.0), 50: Progress(0.1, 0.0)}) == (50, 0.0)
    assert most_progressed({50: Progress(0.1, 0.0)}) == (50, None)
    assert lead_in_se(Progress(0.1, 0.03), Progress(0.0, 0.04)) == pytest.approx(2.0)
    assert most_progressed({50: Progress(0.1, 0), 90: Progress(0.3, 0)}, previous=70)[0] == 90


@given(st.dictionaries(st.integers(0, 100), st.builds(Progress, FIGURES, FIGURES), max_size=6))
def test_a_record_gives_back_what_was_measured(progress) -> None:
    assert from_metrics({"loss": 1.0, "progress_share": 2.0} | to_metrics(progress)) == progress
