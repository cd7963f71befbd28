"""Places look the same every time, and no image shows a place without its number's scene."""

import numpy as np
import pytest

from discl_ray.embedded.digits import SIDE, scans
from discl_ray.embedded.places import PLACES, place, place_look

NUMBERS = [number for numbers in PLACES.values() for number in numbers]


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_place_is_a_function_of_its_number():
    first = place(3)
    place.cache_clear()
    again, other = place(3), place(4)
    assert np.array_equal(first.scene, again.scene)
    assert (first.tint, first.blur) == (again.tint, again.blur)
    assert not np.array_equal(first.scene, other.scene)


def test_no_place_is_in_two_splits_and_there_are_no_others():
    assert list(range(44)) == NUMBERS
    for number in (-1, 44):
        with pytest.raises(ValueError, match=f"place {number}: there is none"):
            place(number)


def test_every_place_is_within_its_ranges_and_lets_most_of_itself_be_seen():
    for number in NUMBERS:
        where = place(number)
        assert where.scene.shape == (SIDE, SIDE, 3)
        assert 0 <= where.scene.min() <= where.scene.max() <= 1
        assert 0 <= where.cover.min() <= where.cover.max() <= 1
        assert where.cover.mean() < 0.4
        assert where.light.min() > 0.1


def test_places_that_nothing_is_trained_at_are_darker_and_more_hidden():
    home = [place(number) for number in PLACES["train"]]
    away = [place(number) for number in (*PLACES["val"], *PLACES["test"])]
    assert np.mean([p.cover.mean() for p in away]) > np.mean([p.cover.mean() for p in home])
    assert np.mean([p.blur for p in away]) > np.mean([p.blur for p in home])
    assert min(p.cover.mean() for p in away) > 0


def test_a_digit_changes_the_middle_of_a_place_and_a_place_hardly_changes():
    where, scan = place(0), scans()[0]
    empty = place_look(None, where, rng()).astype(int)
    digit = place_look(scan.pixels, where, rng()).astype(int)
    assert empty.shape == (SIDE, SIDE, 3)
    change = abs(digit - empty).mean(axis=2)
    assert change[8:24, 8:24].mean() > 1.5 * change[:4].mean()
    again = place_look(None, where, rng(7)).astype(int)
    elsewhere = place_look(None, place(26), rng(7)).astype(int)
    assert abs(again - empty).mean() < abs(elsewhere - empty).mean()


def test_a_night_has_no_colour_but_its_tint():
    night = next(place(number) for number in NUMBERS if place(number).night)
    mean = place_look(None, night, rng()).reshape(-1, 3).mean(axis=0)
    assert mean / mean[1] == pytest.approx(np.array(night.tint) / night.tint[1], rel=0.1)
