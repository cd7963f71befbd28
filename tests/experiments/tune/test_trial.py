"""The metric of a trial."""

import math

import pytest

from discl_ray.errors import DisclError
from discl_ray.experiments.tune.trial import measured, one_line


@pytest.mark.parametrize(
    "metrics",
    [
        [{"val_top1_overall": math.nan}],
        [{}],
        [{"val_top1_overall": 1.0}, {"val_top1_overall": math.inf}],
    ],
)
def test_a_metric_that_is_no_number_fails_the_trial(metrics: list[dict[str, float]]) -> None:
    with pytest.raises(DisclError, match="nothing to judge"):
        measured(metrics, [None] * len(metrics))


def test_the_metric_is_the_mean_over_seeds_and_that_of_the_weights_that_are_kept() -> None:
    assert measured([{"val_top1_overall": 40.0}, {"val_top1_overall": 60.0}], [None, None]) == (
        "val_top1_overall",
        50.0,
    )
    both = {"val_top1_overall": 40.0, "val_macro_f1_ood": 30.0}
    assert measured([both], [None]) == ("val_macro_f1_ood", 30.0)
    assert measured([both], [35.0]) == ("val_macro_f1_ood", 35.0)


def test_an_error_is_one_line() -> None:
    assert one_line(ValueError("two\n  lines")) == "two lines"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 1000))) == 300
