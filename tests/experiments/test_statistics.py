import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from discl_ray.core.metrics import macro_f1
from discl_ray.experiments.statistics import Predicted, interval, over_seeds


def predicted(seed: int, right: float, count: int = 80) -> Predicted:
    rng = np.random.default_rng(seed)
    label = rng.integers(4, size=count)
    said = np.where(rng.random(count) < right, label, (label + 1) % 4)
    return Predicted(label, said, np.ones(count, bool))


def test_a_mean_is_that_of_the_seeds_and_lies_in_its_interval() -> None:
    runs = [predicted(seed, 0.7) for seed in range(6)]
    for metric, figure in (
        ("top1", lambda r: 100 * (r.label == r.predicted).mean()),
        ("macro_f1", lambda r: macro_f1(r.label, r.predicted)),
    ):
        found = interval(runs, metric, resamples=300)
        assert found.mean == pytest.approx(np.mean([figure(run) for run in runs]))
        assert found.low < found.mean < found.high
        assert found == interval(runs, metric, resamples=300)


def test_the_interval_holds_both_sources_of_chance() -> None:
    """Seeds that agree still leave the chance of which test images there are.

    One seed has nothing else.
    """
    one = predicted(0, 0.7, count=400)
    wide = interval([one], "top1", resamples=2000)
    p = (one.label == one.predicted).mean()
    assert (wide.high - wide.low) / 2 == pytest.approx(196 * np.sqrt(p * (1 - p) / 400), rel=0.1)


def test_a_row_against_itself_differs_by_nothing_and_a_better_one_by_its_gain() -> None:
    runs = [predicted(seed, 0.5) for seed in range(5)]
    assert interval(runs, "top1", runs, resamples=50) == (0.0, 0.0, 0.0)
    better = [
        run._replace(predicted=np.where(np.arange(80) < 40, run.label, run.predicted))
        for run in runs
    ]
    gain = interval(better, "top1", runs, resamples=500)
    assert gain.mean == pytest.approx(
        np.mean(
            [
                100 * ((b.predicted == b.label).mean() - (r.predicted == r.label).mean())
                for b, r in zip(better, runs, strict=True)
            ]
        )
    )
    assert gain.low > 0


def test_seeds_without_images_of_a_group_are_left_out_and_none_at_all_is_nan() -> None:
    runs = [predicted(seed, 0.7) for seed in range(3)]
    nothing = runs[0]._replace(part=np.zeros(80, bool))
    assert (
        interval([nothing, *runs[1:]], "top1", resamples=50).mean
        == interval(runs[1:], "top1", resamples=50).mean
    )
    assert np.isnan(interval([nothing], "top1").mean)


@settings(max_examples=20)
@given(st.lists(st.floats(0, 100), min_size=3, max_size=12))
def test_the_bootstrap_over_seeds_is_scipys(values) -> None:
    array = np.array(values)
    found = over_seeds(array)
    if np.ptp(array) > 1e-6:
        scipys = stats.bootstrap(
            (array,), np.mean, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        assert found.low == pytest.approx(scipys.low, abs=0.15 * np.ptp(array))
        assert found.high == pytest.approx(scipys.high, abs=0.15 * np.ptp(array))
    assert found.mean == pytest.approx(array.mean())
