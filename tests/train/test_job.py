import math

import pytest

from discl_ray.train.job import history_rows, numbers, start_epochs
from tests.train.tiny import make_job


@pytest.mark.parametrize(("images", "steps"), [(100, 400), (8, 1), (33, 7), (46, 0)])
def test_a_start_has_the_fewest_epochs_with_enough_steps(images: int, steps: int) -> None:
    job = make_job(start_steps=steps, batch=8)
    epochs = start_epochs(job, images)
    per_epoch = math.ceil(images / 8)
    assert epochs * per_epoch >= steps
    assert (epochs - 1) * per_epoch < steps


def test_rows_of_a_history_are_in_order_of_epochs() -> None:
    history = {"10": {"loss": 0.1}, "2": {"loss": 0.2}}
    assert history_rows(history) == [{"epoch": 2, "loss": 0.2}, {"epoch": 10, "loss": 0.1}]


def test_lists_are_no_numbers() -> None:
    record = {"loss": 0.5, "hard": 3, "progress_sources_0": [0.1], "label": "x"}
    assert numbers(record) == {"loss": 0.5, "hard": 3}
