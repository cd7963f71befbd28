"""Rows: their names, and what their hashes depend on."""

import pytest

from discl_ray.config import with_values
from discl_ray.experiments.pair import pair_of
from discl_ray.experiments.rows import changed, heading, plan_run, row, strategy_name
from discl_ray.experiments.tables import TABLES


def test_rows_are_named_by_what_they_are_and_controls_have_the_prior_of_the_row_beside_them(
    small,
) -> None:
    config, _ = small
    for name, table in TABLES.items():
        base = (
            with_values(config, {"train.model": "clip", "train.start_steps": 0})
            if name == "low_quality"
            else config
        )
        made = {spec.label: spec.of(base) for spec in table.rows}
        for label, found in made.items():
            if found.curriculum.strategy == "adaptive":
                assert ("margin" in label) is (found.curriculum.rule == "margin")
                assert strategy_name(found.curriculum) in label
            assert ("original prior" in label) is (found.train.prior == "original")
            assert found.curriculum.explore_extra is (
                label.startswith("FLYP") and name == "low_quality"
            )
        for label, baseline in table.baselines.items():
            assert made[label].train.prior == made[baseline].train.prior
    with pytest.raises(
        ValueError, match=r"adjusted afterwards where curriculum\.strategy is real_only"
    ):
        row("adjusted", "all_level", read="post_hoc")
    assert "prior: effective (what the stage trains on)" in heading(config)
    paper = with_values(
        config,
        {
            "curriculum.strategy": "adaptive",
            "curriculum.rule": "strict",
            "curriculum.explore_extra": True,
        },
    )
    assert strategy_name(paper.curriculum) == "Adaptive"
    assert "rule: strict, steps on D on top" in heading(paper)


def test_a_strategy_from_outside_is_called_as_it_is_written(small) -> None:
    config, _ = small
    for strategy in ("own_shapes:back_and_forth", "own_shapes:Inner.choose"):
        own = with_values(config, {"curriculum.strategy": strategy})
        assert strategy_name(own.curriculum) == strategy
        assert pair_of(own)[-1].label.endswith(f" + {strategy}")


def test_what_is_made_otherwise_than_before_has_another_name(small) -> None:
    config, spectrum = small
    plain = plan_run(config, spectrum).config_hash
    assert changed(config) == ()
    longer = with_values(config, {"curriculum.explore_extra": True})
    assert changed(longer) == ("epochs as long as those of adaptive",)
    assert changed(with_values(longer, {"curriculum.strategy": "adaptive"})) == ()
    assert (
        plan_run(with_values(config, {"curriculum.allow_empty": True}), spectrum).config_hash
        == plain
    )
