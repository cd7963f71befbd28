"""Sweeps: the space and each way it can be wrong, without Ray; a whole sweep with trials that fail, killed and resumed."""

import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.config import Config, load_config, part_hash
from discl_ray.core.storage import Store
from discl_ray.errors import ConfigError, DisclError
from discl_ray.experiments.tune import space as space_module
from discl_ray.experiments.tune.space import (
    check_sweep,
    draw_points,
    needs,
    nested,
    read_space,
    sweepable,
)
from discl_ray.spectrum.open import Spectrum

ROOT = Path(__file__).resolve().parents[3]
MADE = (0, 10, 30, 50)
LR = {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}}


def config(space: object, *overrides: str) -> Config:
    base = load_config(ROOT / "conf" / "digits_lt.yaml", overrides)
    return base.model_copy(update={"tune": base.tune.model_copy(update={"space": space})})


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
        "tune: {space: {train.learning_rate: {choice: [0.1, 0.2]}, curriculum: {scale: {grid: [1, 2]}}}}"
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
        ({"curriculum.share": {"choice": ["auto", 1.5]}}, "is no share"),
        ({"curriculum.strategy": {"choice": ["all_levels"]}}, "curriculum.strategy = 'all_levels'"),
        (
            {"curriculum.levels": {"choice": [[0, 0.3], [0, 0.7]]}},
            "no image was made at λ = 0.7; there are 0, 0.1, 0.3, 0.5",
        ),
        ({"filter.threshold": {"uniform": [0.1, 0.3]}}, "has no say while filter.mode = rank"),
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


@pytest.mark.parametrize(
    "metrics",
    [
        [{"val_top1_overall": math.nan}],
        [{}],
        [{"val_top1_overall": 1.0}, {"val_top1_overall": math.inf}],
    ],
)
def test_a_metric_that_is_no_number_fails_the_trial(metrics: list[dict[str, float]]) -> None:
    from discl_ray.experiments.tune.trial import measured

    with pytest.raises(DisclError, match="nothing to judge"):
        measured(metrics, [None] * len(metrics))


def test_the_metric_is_the_mean_over_seeds_and_that_of_the_weights_that_are_kept() -> None:
    from discl_ray.experiments.tune.trial import measured

    assert measured([{"val_top1_overall": 40.0}, {"val_top1_overall": 60.0}], [None, None]) == (
        "val_top1_overall",
        50.0,
    )
    both = {"val_top1_overall": 40.0, "val_macro_f1_ood": 30.0}
    assert measured([both], [None]) == ("val_macro_f1_ood", 30.0)
    assert measured([both], [35.0]) == ("val_macro_f1_ood", 35.0)


def test_only_a_finished_trial_can_win(tmp_path: Path) -> None:
    from discl_ray.experiments.tune.outcomes import best_of, is_complete, read_outcomes, record_file

    store = Store.at(tmp_path)

    def trial(name: str, *dev: float, reason: str = "") -> None:
        rows = [
            {"epoch": e, "dev": value, "metric": "val_top1_overall"}
            for e, value in enumerate(dev, 1)
        ]
        point = {"name": name}
        store.write_json(
            record_file(point), {"point": point, "epochs": 3, "rows": rows, "reason": reason}
        )

    trial("failed", 90.0, 90.0, 90.0, reason="it broke")
    trial("stopped", 80.0)
    with pytest.raises(DisclError, match="no trial finished\n  it broke"):
        best_of(read_outcomes(store))
    trial("worse", 40.0, 50.0, 60.0)
    trial("better", 40.0, 50.0, 61.0)
    trial("further", 40.0, 50.0)
    found = read_outcomes(store)
    assert [o.point["name"] for o in found] == ["better", "worse", "further", "stopped", "failed"]
    assert best_of(found).dev == 61.0
    assert not is_complete(store)
    store.write_json("MANIFEST.json", {"trials": 5})
    assert is_complete(store)
    store.delete(record_file({"name": "failed"}))
    assert not is_complete(store)
    store.write_json(
        record_file({"name": "failed"}),
        {"point": {"name": "another"}, "epochs": 3, "rows": [], "reason": ""},
    )
    assert not is_complete(store)


@pytest.mark.parametrize(
    ("ended", "records", "said"),
    [
        (1, ["a"], ""),
        (2, ["a"], "1 records are gone; their trials are trained again"),
        (0, ["a"], ""),
        (1, ["a", "b"], ""),
        (None, ["a"], "is gone; trials that are not over start over"),
        (
            "{}",
            ["a"],
            "is cut short or garbled (no 'trial_data'); trials that are not over start over",
        ),
    ],
)
def test_a_sweep_that_lost_records_is_begun_anew(
    tmp_path: Path, ended: object, records: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from discl_ray.experiments.tune import sweep as module
    from discl_ray.experiments.tune.outcomes import record_file

    store = Store.at(tmp_path)
    for name in records:
        point = {"name": name}
        store.write_json(
            record_file(point), {"point": point, "epochs": 1, "rows": [], "reason": "it broke"}
        )
    if isinstance(ended, int):
        trials = [[json.dumps({"status": "ERROR"}), "{}"]] * ended + [
            [json.dumps({"status": "PENDING"}), "{}"]
        ]
        store.write_json(f"{module.RAY_TUNE}/experiment_state-1.json", {"trial_data": trials})
    if isinstance(ended, str):
        store.write(f"{module.RAY_TUNE}/experiment_state-1.json", ended.encode())
    assert module._can_go_on(SimpleNamespace(store=store)) == (not said)
    assert said in capsys.readouterr().out


def test_a_sweep_that_ran_out_of_time_is_not_complete_and_goes_on_with_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from discl_ray.experiments.tune import sweep as module

    began: list[str] = []

    class Tuner:
        """Ray Tune's, as far as it is asked; each fit takes a minute of the sweep's time."""

        def __init__(self, *_: object, run_config: object, **__: object) -> None:
            began.append("anew")
            (tmp_path / module.RAY_TUNE).mkdir()
            (tmp_path / module.RAY_TUNE / "experiment_state.json").write_text('{"trial_data": []}')

        @staticmethod
        def can_restore(path: str, **_: object) -> bool:
            return Path(path).is_dir()

        @classmethod
        def restore(cls, *_: object, **__: object) -> object:
            began.append("restored")
            return cls.__new__(cls)

        def fit(self) -> None:
            deadline, now = module._Deadline(store), [0.0]
            monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
            while not deadline.stop_all() and now[0] < 60:
                now[0] += 0.5

    monkeypatch.setattr(module.tune, "Tuner", Tuner)
    store = Store.at(tmp_path)

    def sweep(limit: float | None) -> bool:
        own = config(LR, f"tune.time_limit_s={'null' if limit is None else limit}")
        seeded = (
            module.Seeded(
                config=own, spectrum=Spectrum(store=store, samples=store, classes=()), start=None
            ),
        )
        return module.run_sweep(
            module.Sweep(dimensions=(), points=({},), seeded=seeded, store=store)
        )

    assert not sweep(20)
    assert not sweep(20)  # nothing is begun without time
    assert sweep(100)
    assert began == ["anew", "anew"]
    assert not sweep(110)  # counted over all of them
    assert sweep(None)
    assert began == ["anew", "anew", "restored", "anew"]


class Judged:
    """A sweep whose trials report given curves, one trial after the other, and which may be killed and taken up again."""

    def __init__(self, store: Store, curves: list[list[int]]) -> None:
        from discl_ray.experiments.tune.outcomes import Seeded, Sweep

        points = tuple(
            {"train.learning_rate": float(number)} for number in range(1, len(curves) + 1)
        )
        seeded = (
            Seeded(
                config=config(LR),
                spectrum=Spectrum(store=store, samples=store, classes=()),
                start=None,
            ),
        )
        self.sweep, self.curves = (
            Sweep(dimensions=(), points=points, seeded=seeded, store=store),
            curves,
        )
        self.trials = [
            SimpleNamespace(trial_id=f"t{n}", config={"point": n}) for n in range(len(curves))
        ]
        self.reports = 0

    def start(self, stop_after: int | None, lag: int, over: set[int]) -> bool:
        """Runs what is left; False if it was killed after so many reports. `lag` is how far checkpoints are behind records."""
        from discl_ray.experiments.tune.outcomes import read_outcome, write_outcome
        from discl_ray.experiments.tune.rungs import Rungs

        rungs = Rungs(self.sweep, max_t=len(self.curves[0]), grace_period=2)
        rungs.set_search_properties("dev", "max")
        for trial in self.trials:
            rungs.on_trial_add(None, trial)
        for number, (trial, point) in enumerate(zip(self.trials, self.sweep.points, strict=True)):
            if number in over:
                continue
            name, rows = self.sweep.record(point), []
            known = read_outcome(self.sweep.store, name) if self.sweep.store.exists(name) else None
            if known is not None:
                rows = (
                    list(known.rows)
                    if known.over
                    else list(known.rows[: max(0, len(known.rows) - lag)])
                )
            for epoch in range(
                1 if known is not None and known.over else len(rows) + 1,
                len(self.curves[number]) + 1,
            ):
                if known is not None and known.over and epoch > len(rows):
                    break
                if known is None or not known.over:
                    rows = [
                        *rows,
                        {
                            "epoch": epoch,
                            "metric": "val",
                            "dev": float(self.curves[number][epoch - 1]),
                        },
                    ]
                    write_outcome(self.sweep, point, rows=rows, epochs=len(self.curves[number]))
                self.reports += 1
                if self.reports == stop_after:
                    return False
                if rungs.on_trial_result(None, trial, rows[epoch - 1]) == Rungs.STOP:
                    break
            over.add(number)
        return True

    def verdicts(self) -> list[tuple[str, int]]:
        """What became of each trial, in the order of the points."""
        from discl_ray.experiments.tune.outcomes import read_outcome

        found = [
            read_outcome(self.sweep.store, self.sweep.record(point)) for point in self.sweep.points
        ]
        return [(outcome.status, outcome.epoch) for outcome in found]


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=18, max_size=18), min_size=2, max_size=6),
    st.integers(1, 60),
    st.integers(0, 2),
    st.booleans(),
)
def test_a_killed_sweep_judges_its_trials_as_one_that_was_not(
    tmp_path_factory, curves, kill, lag, known
) -> None:
    whole = Judged(Store.at(tmp_path_factory.mktemp("whole")), curves)
    assert whole.start(None, 0, set())
    killed, over = Judged(Store.at(tmp_path_factory.mktemp("killed")), curves), set()
    if not killed.start(kill, lag, over):
        assert killed.start(
            None, lag, over if known else set()
        )  # Ray Tune may know which trials are over, or none
    assert killed.verdicts() == whole.verdicts()


# -- the whole thing

TINY = [
    "plan.replicas=1", "plan.num_steps=4", "plan.lams=[0,0.5]", "plan.shard_steps=20", "hard.probe_sources=1", "hard.below=4",
    "data.head=8", "data.tail=2", "generator.actors=1", "train.width=4", "train.epochs=6", "curriculum.epochs=4",
    "train.start_steps=4", "train.eval_every=1", "train.batch=48",
]  # fmt: skip
SPACE = """
tune:
  scheduler: none
  space:
    train.learning_rate: {grid: [0.001, 0.003, 1.0e+30]}       # the last gives NaN
    curriculum.strategy: {grid: [diverse_to_specific, adaptive]}  # the second has no room for a round of exploration
"""


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_sweep_with_failing_trials_is_killed_resumed_and_names_a_good_one(
    spectrum_run, tmp_path: Path
) -> None:
    generated = Path(spectrum_run[1].store.base)
    (tmp_path / "runs" / "digits_lt").mkdir(parents=True)
    for folder in [generated, *generated.parent.glob("samples-*")]:
        shutil.copytree(folder, tmp_path / "runs" / "digits_lt" / folder.name)
    mine = tmp_path / "runs" / "digits_lt" / generated.name
    for path in [mine, *mine.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / "space.yaml").write_text(SPACE)
    files = ["--config", "conf/digits_lt.yaml", "--config", str(tmp_path / "space.yaml")]
    command = [sys.executable, "jobs/tune.py", *files, *TINY, f"run.root={tmp_path / 'runs'}"]

    def records() -> dict[str, dict]:
        return {
            p.name: json.loads(p.read_text())
            for p in tmp_path.glob("runs/digits_lt/tune-*/trials/*.json")
        }

    def ended(found: dict) -> bool:
        return bool(found["reason"]) or len(found["rows"]) == 6

    before = {path: path.stat().st_mtime_ns for path in mine.rglob("*")}
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    limit = time.monotonic() + 300
    while not any(map(ended, records().values())) and time.monotonic() < limit:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {
        p: p.stat().st_mtime_ns
        for p in tmp_path.glob("runs/digits_lt/tune-*/trials/*.json")
        if len(json.loads(p.read_text())["rows"]) == 6
    }
    resumed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert all(path.stat().st_mtime_ns == at for path, at in done.items())  # not run again
    assert {path: path.stat().st_mtime_ns for path in mine.rglob("*")} == before

    found = list(records().values())
    assert len(found) == 6
    good = [r for r in found if not r["reason"]]
    assert len(good) == 2
    assert all([row["epoch"] for row in r["rows"]] == [1, 2, 3, 4, 5, 6] for r in good)
    reasons = " ".join(r["reason"] for r in found)
    assert "the loss is" in reasons
    assert "too few for a round" in reasons
    (sweep,) = tmp_path.glob("runs/digits_lt/tune-*")
    table = (sweep / "tune.md").read_text()
    assert "2 finished, 0 stopped, 4 failed" in table
    assert "| synthetic seen |" in table
    assert all(0 < r["rows"][0]["synthetic_seen"] < r["rows"][-1]["synthetic_seen"] for r in good)
    assert (sweep / "tune.png").stat().st_size > 10_000
    best = yaml.safe_load((sweep / "best.yaml").read_text())
    top = max(good, key=lambda r: r["rows"][-1]["dev"])
    assert best["train"]["learning_rate"] in (0.001, 0.003)
    assert top["rows"][-1]["dev"] == max(r["rows"][-1]["dev"] for r in good)
    loaded = load_config([ROOT / "conf" / "digits_lt.yaml", sweep / "best.yaml"])
    assert loaded.curriculum.strategy == "diverse_to_specific"
    assert re.search(
        r"jobs/train\.py --config conf/digits_lt\.yaml --config \S+ --config \S+best\.yaml ",
        resumed.stdout,
    )
    assert not list(tmp_path.glob("runs/digits_lt/**/test_ledger.jsonl"))
