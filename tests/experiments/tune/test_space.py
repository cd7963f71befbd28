"""The space of a sweep and each way it can be wrong, without Ray."""

import importlib.util
from pathlib import Path

import pytest

from discl_ray.config import load_config, part_hash
from discl_ray.errors import ConfigError
from discl_ray.experiments.tune import space as space_module
from discl_ray.experiments.tune.space import (
    check_sweep,
    draw_points,
    needs,
    nested,
    read_space,
    shown,
    sweepable,
    text,
)
from tests.support.sweeps import LR, ROOT, config

MADE = (0, 10, 30, 50)


def refused(space: object, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_sweep(config(space, *overrides), MADE)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_committed_space_is_sound_and_its_points_are_different_and_repeatable() -> None:
    both = load_config([ROOT / "conf" / "digits_lt.yaml", ROOT / "conf" / "tune_digits_lt.yaml"])
    dimensions = check_sweep(both, MADE)
    points = draw_points(dimensions, 40, 0)
    assert len(points) == 40
    assert all(point not in points[:i] for i, point in enumerate(points))
    assert points == draw_points(dimensions, 40, 0) != draw_points(dimensions, 40, 1)
    assert points[:10] == draw_points(dimensions, 10, 0)


def test_a_sweep_changes_no_run() -> None:
    parts = ("seed", "filter", "curriculum", "train")
    assert part_hash(config(LR, "tune.trials=3"), parts) == part_hash(config({}), parts)


def test_keys_are_dotted_or_nested_and_an_override_stands_in_for_the_file(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "tune: {space: {train.learning_rate: {choice: [0.1, 0.2]}, "
        "curriculum: {scale: {grid: [1, 2]}}}}"
    )
    files = [ROOT / "conf" / "digits_lt.yaml", tmp_path / "space.yaml"]
    loaded = load_config(files, ["tune.space.train.learning_rate.uniform=[0.1,0.3]"])
    dimensions, problems = read_space(loaded.tune.space)
    assert problems == []
    assert {(d.key, d.kind, d.values) for d in dimensions} == {
        ("train.learning_rate", "uniform", (0.1, 0.3)),
        ("curriculum.scale", "grid", (1, 2)),
    }


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "conf/tune_digits_lt.yaml"),
        ({"train.learning_rte": {"choice": [1]}}, "did you mean 'train.learning_rate'?"),
        ({"plan.replicas": {"choice": [1]}}, "no key that can be swept"),
        ({"train.workers": {"choice": [1, 2]}}, "no key that can be swept"),
        ({"train.augment": {"choice": [1]}}, "no key that can be swept"),
        (
            {"train.learning_rate": {"unifrom": [0.1, 0.2]}},
            "unknown distribution; did you mean 'uniform'?",
        ),
        ({"train.learning_rate": [0.1, 0.2]}, "unknown distribution"),
        ({"train.learning_rate": {"uniform": [0.1, 0.2], "choice": [0.1]}}, "two distributions"),
        ({"train.learning_rate": {"uniform": [0.1]}}, "two numbers are needed"),
        ({"train.learning_rate": {"uniform": [0.1, "x"]}}, "two numbers are needed"),
        ({"train.learning_rate": {"uniform": [0.2, 0.1]}}, "the first must be less"),
        ({"train.learning_rate": {"loguniform": [0, 0.1]}}, "more than 0"),
        ({"train.learning_rate": {"choice": []}}, "a list is needed"),
        ({"train.learning_rate": {"choice": [0.1, 0.1]}}, "names a value twice"),
        (
            {"train.learning_rate": {"uniform": [-0.1, 0.1]}},
            "train.learning_rate = -0.1: input should be greater than 0",
        ),
        ({"train.learning_rate": {"choice": [0.1, "fast"]}}, "train.learning_rate = 'fast'"),
        ({"curriculum.epochs": {"uniform": [1, 20]}}, "valid integer"),
        (
            {"curriculum.epochs": {"randint": [1, 40]}},
            "curriculum.epochs = 40 exceeds train.epochs = 35",
        ),
        ({"curriculum.epochs": {"randint": [1.5, 20]}}, "whole numbers"),
        ({"curriculum.share": {"choice": ["auto", 1.5]}}, "must be in (0, 1]"),
        ({"curriculum.strategy": {"choice": ["all_levels"]}}, "curriculum.strategy = 'all_levels'"),
        (
            {"curriculum.levels": {"choice": [[0, 0.3], [0, 0.7]]}},
            "no image was made at λ = 0.7; there are 0, 0.1, 0.3, 0.5",
        ),
        ({"filter.threshold": {"uniform": [0.1, 0.3]}}, "has no effect with filter.mode = rank"),
        ({"train.width": {"choice": [8, 16]}}, "share a start"),
    ],
)
def test_what_is_wrong_with_a_space_is_said(space: dict, said: str) -> None:
    assert said in refused(space)


def test_every_problem_is_reported_at_once() -> None:
    wrong = {
        "train.learning_rte": {"choice": [1]},
        "curriculum.scale": {"uniform": [0, 2]},
        "filter.rank": {"randomly": [1]},
    }
    message = refused(wrong, "tune.grace=36", "tune.concurrent=9", "run.num_cpus=4")
    assert message.startswith("5 problems")
    for part in (
        "learning_rte",
        "curriculum.scale = 0",
        "filter.rank.randomly",
        "tune.grace = 36",
        "needs 9 CPUs and there are 4",
    ):
        assert part in message


def test_values_that_cannot_be_together_are_found_before_the_first_trial() -> None:
    both = {"train.epochs": {"choice": [20, 35]}, "curriculum.epochs": {"choice": [15, 30]}}
    assert "curriculum.epochs = 30 exceeds train.epochs = 20" in refused(
        both, "curriculum.epochs=15", "tune.grace=5"
    )


def test_grids_are_tried_whole() -> None:
    grids = {
        "curriculum.scale": {"grid": [1.0, 2.0, 3.0]},
        "curriculum.share": {"grid": ["auto", None]},
    }
    assert "the grids have 6 points" in refused(grids, "tune.trials=5")
    dimensions = check_sweep(config(grids, "tune.trials=20"), MADE)
    assert len(draw_points(dimensions, 20, 0)) == 6
    points = draw_points(check_sweep(config(grids | LR), MADE), 12, 0)
    corners = [(p["curriculum.scale"], p["curriculum.share"]) for p in points]
    assert all(corners.count(corner) == 2 for corner in corners)
    assert "draws; write choice" in refused(grids, "tune.search=optuna")


def test_a_space_with_few_points_ends_when_it_has_no_more() -> None:
    dimensions, _ = read_space({"curriculum.scale": {"choice": [1.0, 2.0]}})
    assert len(draw_points(dimensions, 10, 0)) == 2


def test_optuna_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        space_module.importlib.util,
        "find_spec",
        lambda name: None if name == "optuna" else find(name),
    )
    assert "the package optuna is not installed" in refused(LR, "tune.search=optuna")


def test_trials_of_several_workers_leave_room_for_what_waits_for_them() -> None:
    several = config(LR, "train.workers=2", "tune.concurrent=2")
    assert needs(several)["CPU"] == pytest.approx(4.2)
    assert "needs 4.2 CPUs and there are 4" in refused(LR, "train.workers=2", "run.num_cpus=4")
    assert "a trial is one run" in refused(LR, "train.workers=2", "run.num_cpus=8", "tune.seeds=2")
    assert needs(config(LR, "train.use_gpu=true"))["GPU"] == 2


def test_ranges_are_closed_and_rounded_to_what_is_shown() -> None:
    dimensions, _ = read_space({"curriculum.epochs": {"randint": [1, 3]}, **LR})
    points = draw_points(dimensions, 60, 0)
    assert {p["curriculum.epochs"] for p in points} == {1, 2, 3}
    rates = [p["train.learning_rate"] for p in points]
    assert all(1e-4 <= r <= 1e-2 and r == float(f"{r:.4g}") for r in rates)
    assert sum(r < 1e-3 for r in rates) > 15


def test_only_what_decides_a_training_run_can_be_swept() -> None:
    known = sweepable()
    assert {
        "curriculum.strategy",
        "train.augment.kind",
        "filter.rank",
        "train.learning_rate",
    } <= set(known)
    assert not [key for key in known if key.startswith(("run.", "data.", "plan.", "tune."))]
    assert nested({"train.augment.kind": "standard", "train.batch": 2}) == {
        "train": {"augment": {"kind": "standard"}, "batch": 2}
    }


def test_a_point_is_shown_as_it_is_written_on_a_command_line() -> None:
    point = {"curriculum.share": None, "curriculum.levels": [0, 0.5], "train.nesterov": True}
    assert shown(point) == "curriculum.share=null, curriculum.levels=[0,0.5], train.nesterov=true"
    assert text(0.00012) == "0.00012"
