"""The configured row beside the baseline."""

from discl_ray.config import Config, with_values
from discl_ray.experiments.pair import pair_of


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
