"""Fields are identity or execution; those added later leave older hashes as they are."""

from typing import Literal

import pytest
from pydantic import ValidationError

from discl_ray.core.settings import (
    Count,
    Location,
    Settings,
    Share,
    Switch,
    added,
    check_options,
    execution,
    identity,
    named,
    with_values_before,
)


class Inner(Settings):
    name: Literal["inner"] = "inner"
    rate: float = 0.5
    later: int = added(2, before=1)


class Other(Settings):
    name: str = "other"
    size: int = 3


class Outer(Settings):
    inner: Inner | Other = Inner()
    workers: Count = execution("auto")
    place: Location = execution("~/runs")


def test_execution_fields_are_not_identity_and_added_ones_only_where_they_differ():
    assert identity(Outer()) == {"inner": {"name": "inner", "rate": 0.5, "later": 2}}
    same = Outer(inner=Inner(later=1), workers=4, place="/elsewhere")
    assert identity(same) == {"inner": {"name": "inner", "rate": 0.5}}


def test_recorded_configs_get_the_values_of_their_time():
    old = {"inner": {"name": "inner", "rate": 0.1}}
    assert with_values_before(Outer, old) == {"inner": {**old["inner"], "later": 1}}
    newer = {"inner": {"name": "inner", "later": 7}}
    assert with_values_before(Outer, newer) == newer
    assert with_values_before(Outer, {"inner": {"name": "mine"}}) == {"inner": {"name": "mine"}}
    assert old == {"inner": {"name": "inner", "rate": 0.1}}


def test_a_union_is_chosen_by_name_and_the_last_takes_others():
    kinds = [Inner, Other]
    assert named(kinds, "inner") is Inner
    assert named(kinds, "other") is named(kinds, "anything") is Other


def test_unknown_keys_and_changes_are_errors(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert Outer(place="~/x").place == "/home/me/x"
    with pytest.raises(ValidationError, match="Extra inputs"):
        Inner.model_validate({"rte": 1})
    with pytest.raises(ValidationError, match="frozen"):
        Inner().rate = 1.0  # pyright: ignore[reportAttributeAccessIssue]


class Numbers(Settings):
    count: Count = "auto"
    share: Share = "auto"
    switch: Switch = "auto"


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("count", ["auto", 1, 16], [0, -1, 1.5, True, "two"]),
        ("share", ["auto", 0, 0.25, 1], [-0.1, 1.5, True, "half"]),
        ("switch", ["auto", True, False], [1, 0, "yes"]),
    ],
)
def test_auto_or_a_value_in_range(key, good, bad):
    for value in good:
        assert getattr(Numbers.model_validate({key: value}), key) == value
    for value in bad:
        with pytest.raises(ValidationError, match="is needed"):
            Numbers.model_validate({key: value})


def test_options_are_for_functions_from_outside():
    assert check_options({"a": 1}, "module:function", ["rank"]) == {"a": 1}
    assert check_options({}, "rank", ["rank"]) == {}
    with pytest.raises(ValueError, match="no effect with 'rank'"):
        check_options({"a": 1}, "rank", ["rank"])
