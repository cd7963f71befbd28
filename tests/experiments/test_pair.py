"""The configured row beside the baseline."""

import pytest

from discl_ray.api import train_classifier
from discl_ray.config import Config, with_values
from discl_ray.experiments.pair import pair_of
from discl_ray.experiments.rows import SHARED_WORDS


def labels(**values: object) -> list[str]:
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return [spec.label for spec in pair_of(with_values(Config(), dotted))]


def test_the_baseline_is_cross_entropy_on_real_images() -> None:
    assert labels(curriculum__strategy="all_level", train__loss="ce") == ["CE", "CE + All-Level"]
    assert labels(curriculum__strategy="all_level", train__loss="balanced_softmax") == [
        "CE",
        "BS + All-Level",
    ]


def test_what_is_the_baseline_itself_is_one_row() -> None:
    assert labels(curriculum__strategy="real_only", train__loss="ce") == ["CE"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_are_trained_from_one_start_with_as_many_epochs(small, capsys) -> None:
    config, _ = small
    rows = train_classifier(config)  # calls `train_pair`
    assert [row.label for row in rows] == [spec.label for spec in pair_of(config)]
    assert rows[0].label == "CE"
    baseline, configured = rows
    assert [row["epoch"] for row in baseline.history] == [1, 2, 3]
    assert [row["epoch"] for row in configured.history] == [1, 2, 3]
    assert all(row["synthetic"] == 0 for row in baseline.history)
    assert sum(row["synthetic"] for row in configured.history) > 0
    assert baseline.weights.keys() == configured.weights.keys()
    assert 0 <= baseline.scores["top1", "overall"][0] <= 100
    said = capsys.readouterr().out
    assert SHARED_WORDS in said
    assert "CE: real images alone, the baseline; " in said
