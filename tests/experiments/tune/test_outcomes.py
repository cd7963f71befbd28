"""Outcomes: what is recorded is read, and only a finished trial can win."""

from pathlib import Path

import pytest

from discl_ray.core.storage import Store
from discl_ray.errors import DisclError
from discl_ray.experiments.tune.outcomes import (
    Seeded,
    Sweep,
    best_of,
    is_complete,
    read_outcome,
    read_outcomes,
    record_file,
    write_outcome,
)
from discl_ray.spectrum.open import Spectrum
from tests.support.sweeps import LR, config


def test_only_a_finished_trial_can_win(tmp_path: Path) -> None:
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


def test_a_record_keeps_its_rows_when_only_the_reason_is_new(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    point = {"train.learning_rate": 0.1}
    spectrum = Spectrum(store=store, samples=store, classes=())
    seeded = (Seeded(config=config(LR), spectrum=spectrum, start=None),)
    sweep = Sweep(dimensions=(), points=(point,), seeded=seeded, store=store)
    rows = [{"epoch": 1, "metric": "val_top1_overall", "dev": 50.0, "synthetic_seen": 7}]
    write_outcome(sweep, sweep.point({"point": 0}), rows=rows, epochs=2)
    write_outcome(sweep, point, rows=None, epochs=2, reason="its process died")
    found = read_outcome(store, sweep.record(point))
    assert (found.epoch, found.dev, found.seen) == (1, 50.0, 7)
    assert (found.status, found.reason, found.over) == ("failed", "its process died", False)
