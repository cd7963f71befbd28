"""A sweep's pages from recorded trials, its next command, and what is settled before it starts."""

import sys

import pytest
import yaml

from discl_ray.commands.tune import job, next_command, seeds_of, settled_sweep, write_results
from discl_ray.config import Config, with_values
from discl_ray.core.storage import Store
from discl_ray.errors import ConfigError
from discl_ray.experiments.tune.outcomes import record_file
from discl_ray.experiments.tune.space import check_sweep
from discl_ray.spectrum.open import Spectrum
from tests.support.sweeps import LR, config

KEY = "train.learning_rate"


def test_the_next_command_drops_what_the_sweep_decided(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISCL_RAY_BY_MAKE", raising=False)
    words = ["jobs/tune.py", "--config", "a.yaml", "tune.trials=4", f"{KEY}=1", "seed=2"]
    monkeypatch.setattr(sys, "argv", words)
    best = tmp_path / "runs" / "best.yaml"
    command = next_command([KEY], str(best))
    assert command.endswith("jobs/train.py --config a.yaml --config runs/best.yaml seed=2")
    elsewhere = next_command([KEY], "/elsewhere/best.yaml")
    assert "--config /elsewhere/best.yaml" in elsewhere


def test_one_spectrum_does_not_do_for_several_seeds():
    several = with_values(Config(), {"spectrum.path": "/x", "tune.seeds": 2})
    with pytest.raises(ConfigError, match=r"tune\.seeds = 2 need one each"):
        seeds_of(several)


@pytest.mark.model
def test_every_missing_spectrum_is_named_before_a_trial(small):
    asked = small("seed=3", "tune.seeds=2")
    with pytest.raises(ConfigError) as caught:
        seeds_of(asked)
    words = str(caught.value)
    assert words.startswith("spectra are missing\n  seed 3: ")
    assert "\n  seed 4: " in words
    with pytest.raises(ConfigError, match="spectra are missing"):
        job(asked)


@pytest.mark.model
def test_a_trial_has_one_worker_unless_more_are_asked_for():
    cpu = {"train.use_gpu": False, "run.num_cpus": 3, "tune.concurrent": 2}
    settled = settled_sweep(with_values(Config(), cpu))
    assert (settled.train.workers, settled.tune.concurrent) == (1, 2)


def test_the_best_finished_trial_is_written_with_page_and_picture(spectrum_run, tmp_path, capsys):
    _, made = spectrum_run
    spectrum = Spectrum.open(made.store)
    swept = config(LR, "seed=5")
    dimensions = check_sweep(swept, (0, 10, 30, 50))
    store = Store.at(tmp_path)
    courses = {0.001: (40.0, 50.0), 0.002: (45.0, 61.0), 0.003: (70.0,)}
    for rate, course in courses.items():
        point = {KEY: rate}
        rows = []
        for epoch, dev in enumerate(course, 1):
            rows.append({"epoch": epoch, "dev": dev, "metric": "val_top1_overall"})
        record = {"point": point, "epochs": 2, "rows": rows, "reason": ""}
        store.write_json(record_file(point), record)
    write_results(swept, spectrum, store, dimensions)
    assert yaml.safe_load(store.read("best.yaml")) == {"train": {"learning_rate": 0.002}}
    assert store.read("tune.png").startswith(b"\x89PNG")
    page = store.read("tune.md").decode()
    first, second, third = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert first.startswith("| 1 | 61.00 | 0.002 |")
    assert second.startswith("| 2 | 50.00 | 0.001 |")
    assert third.startswith("| – | 70.00 | 0.003 |")
    assert "top1 overall on val [%]" in page
    assert "- 2 finished, 1 stopped, 0 failed; search " in page
    assert ", seed 5. Only finished" in page
    said = capsys.readouterr().out
    assert page in said
    assert "best.yaml · next:" in said
