import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.curriculum.progress import (
    Progress,
    from_metrics,
    lead_in_se,
    most_progressed,
    progress_of,
    to_metrics,
    unpaired,
)

FIGURES = st.floats(0, 1, width=32)


def test_progress_is_the_mean_difference_and_its_error_is_that_of_the_sources_means() -> None:
    before = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    after = np.array([0.3, 0.4, 0.2, 0.3, 0.9, 0.1])
    level = np.array([50, 50, 50, 50, 90, 90])
    source = np.array(["a", "a", "b", "b", "a", "a"])
    found = progress_of(before, after, level, source)
    # at 50: differences .2 .2 -.1 -.1; two sources with means .2 and -.1, so mean .05 and SE .15
    assert found[50][:2] == (pytest.approx(0.05), pytest.approx(0.15))
    assert found[90][:2] == (pytest.approx(0.0), 0.0)  # one source has no error to speak of
    assert found[50].by_source == (0.2, -0.1)
    assert found[90].by_source == (0.0, None)  # the level has no probe of b


@given(values=st.lists(st.tuples(FIGURES, FIGURES), min_size=2, max_size=20))
def test_with_a_source_each_the_error_is_the_usual_one_of_a_paired_mean(values) -> None:
    before, after = np.array(values).T
    found = progress_of(
        before, after, np.zeros(len(values), np.int64), np.arange(len(values)).astype(str)
    )[0]
    difference = after - before
    assert found.mean == pytest.approx(difference.mean(), abs=1e-9)
    assert found.se == pytest.approx(difference.std(ddof=1) / np.sqrt(len(values)), abs=1e-9)


def test_of_equals_the_lowest_level_is_taken_and_the_lead_is_over_the_second() -> None:
    assert most_progressed({90: Progress(0.1, 0.0), 50: Progress(0.1, 0.0)}) == (50, 0.0)
    assert most_progressed({50: Progress(0.1, 0.0)}) == (50, None)
    assert lead_in_se(Progress(0.1, 0.03), Progress(0.0, 0.04)) == pytest.approx(2.0)
    assert most_progressed({50: Progress(0.1, 0), 90: Progress(0.3, 0)}, previous=70)[0] == 90


PROBE = st.tuples(st.sampled_from("abcdefg"), st.sampled_from([50, 90]), FIGURES, FIGURES)


@given(probes=st.lists(PROBE, min_size=1, max_size=40))
def test_a_lead_is_in_standard_errors_of_the_differences_of_common_sources(probes) -> None:
    source, level, before, after = (np.array(column) for column in zip(*probes, strict=True))
    found = progress_of(before, after, level, source)
    if len(found) < 2:
        return
    mean = {}  # by hand: the mean difference of each source at each level
    for name, lam, one, other in probes:
        mean.setdefault((name, lam), []).append(other - one)
    common = [name for name in "abcdefg" if (name, 50) in mean and (name, 90) in mean]
    deltas = [
        float(f"{np.mean(mean[n, 50]):.4g}") - float(f"{np.mean(mean[n, 90]):.4g}") for n in common
    ]
    if len(common) > 1:
        centre = sum(deltas) / len(deltas)
        se = math.sqrt(sum((d - centre) ** 2 for d in deltas) / (len(deltas) * (len(deltas) - 1)))
    else:
        centre, se = found[50].mean - found[90].mean, math.hypot(found[50].se, found[90].se)
    lead = lead_in_se(found[50], found[90])
    if se > 1e-9:
        assert lead == pytest.approx(centre / se, rel=1e-6)
        assert lead_in_se(found[90], found[50]) == pytest.approx(-lead)
    again = from_metrics(json.loads(json.dumps(to_metrics(found))))
    assert lead_in_se(again[50], again[90]) == lead


def test_what_moves_all_levels_of_a_source_alike_does_not_hide_a_lead() -> None:
    """Sources that differ by .3 and levels by .01.

    Unpaired errors show nothing, paired ones a sure lead.
    """
    level, source = np.repeat([50, 90], 6), np.tile(list("abcdef"), 2)
    easier = np.tile(np.linspace(0, 0.3, 6), 2)
    after = (
        easier
        + np.where(level == 90, 0.01, 0)
        + np.tile([0.001, -0.001, 0.0005, 0, 0.0002, -0.0007], 2) * (level == 90)
    )
    progress = progress_of(np.zeros(12), after, level, source)
    assert lead_in_se(progress[90], progress[50]) > 10
    plain = {lam: Progress(found.mean, found.se) for lam, found in progress.items()}
    assert lead_in_se(plain[90], plain[50]) < 1
    assert most_progressed(progress, previous=50)[0] == 90
    assert most_progressed(plain, previous=50)[0] == 50


def test_without_two_common_sources_the_errors_are_those_of_strangers() -> None:
    one = Progress(0.2, 0.03, (0.1, 0.3, None, None))
    other = Progress(0.1, 0.04, (None, 0.0, 0.2, 0.1))
    assert lead_in_se(one, other) == pytest.approx(0.1 / 0.05)


@given(
    st.dictionaries(
        st.integers(0, 100),
        st.builds(Progress, FIGURES, FIGURES, st.lists(st.none() | FIGURES, max_size=3).map(tuple)),
        max_size=6,
    )
)
def test_a_record_gives_back_what_was_measured(progress) -> None:
    record = {"loss": 1.0, "progress_share": 2.0} | to_metrics(progress)
    assert from_metrics(record) == progress
    assert from_metrics(json.loads(json.dumps(record))) == progress
    assert unpaired([record, {"loss": 1.0}]) == (
        not all(found.by_source for found in progress.values())
    )
