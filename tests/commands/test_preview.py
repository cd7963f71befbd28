"""What an earlier preview measured is read back.

Its whole path is in tests/plan/test_forecast.py.
"""

import json

import pytest

from discl_ray.commands.preview import FIGURES, speed_before
from discl_ray.core.storage import Store
from discl_ray.plan.forecast import Speed

SPEED = {"steps_per_s": 50.0, "peak_bytes": 2_000_000_000, "micro_batch": 8, "generators": 1}


def test_a_measured_speed_is_read_back(tmp_path):
    store = Store.at(tmp_path)
    store.write_json(FIGURES, {"speed": SPEED})
    assert speed_before(store) == Speed(**SPEED)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"speed": None}),
        json.dumps({"speed": {**SPEED, "steps_per_s": 0}}),
        json.dumps({"speed": {"steps_per_s": 1.0}}),
        json.dumps({}),
        '{"speed": ',
    ],
)
def test_no_speed_or_a_damaged_one_is_none(tmp_path, text):
    store = Store.at(tmp_path)
    store.write(FIGURES, text.encode())
    assert speed_before(store) is None


def test_before_the_first_preview_there_is_none(tmp_path):
    assert speed_before(Store.at(tmp_path)) is None
