"""Sweeps: what is resumed and what begins anew.

A whole sweep with trials that fail is killed and resumed.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from discl_ray.config import load_config
from discl_ray.core.storage import Store
from discl_ray.experiments.tune.space import nested
from discl_ray.spectrum.open import Spectrum
from tests.support.sweeps import LR, ROOT, config


@pytest.mark.parametrize(
    ("ended", "records", "said"),
    [
        (1, ["a"], ""),
        (2, ["a"], "1 record is gone; their trials are trained again"),
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
    assert module.can_resume(store) == (not said)
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
            now = [0.0]
            deadline = module.Deadline(store, now=lambda: now[0])
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


# -- the whole thing

TINY = [
    "plan.replicas=1",
    "plan.num_steps=4",
    "plan.lams=[0,0.5]",
    "plan.shard_steps=20",
    "hard.probe_sources=1",
    "hard.below=4",
    "data.head=8",
    "data.tail=2",
    "generator.actors=1",
    "train.width=4",
    "train.epochs=6",
    "curriculum.epochs=4",
    "train.start_steps=4",
    "train.eval_every=1",
    "train.batch=48",
]
SPACE = """
tune:
  scheduler: none
  space:
    train.learning_rate: {grid: [0.001, 0.003, 1.0e+30]}       # the last gives NaN
    # the second has no room for a round of exploration
    curriculum.strategy: {grid: [diverse_to_specific, adaptive]}
"""


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_sweep_with_failing_trials_is_killed_resumed_and_writes_the_best(
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
    with Image.open(sweep / "tune.png") as picture:
        assert len(picture.convert("L").getcolors(256) or []) > 20  # lines, words and a grid
    best = yaml.safe_load((sweep / "best.yaml").read_text())
    top = max(r["rows"][-1]["dev"] for r in good)
    winners = [nested(r["point"]) for r in good if r["rows"][-1]["dev"] == top]
    assert best in winners
    loaded = load_config([ROOT / "conf" / "digits_lt.yaml", sweep / "best.yaml"])
    assert loaded.curriculum.strategy == "diverse_to_specific"
    assert re.search(
        r"jobs/train\.py --config conf/digits_lt\.yaml --config \S+ --config \S+best\.yaml ",
        resumed.stdout,
    )
    assert not list(tmp_path.glob("runs/digits_lt/**/test_ledger.jsonl"))
