import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from discl_ray.core.ids import sha256
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.storage import Store
from discl_ray.train.run_files import (
    METRICS,
    MODEL,
    finished_weights,
    read_history,
    write_history,
    write_manifest,
    write_tensorboard,
)


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_a_history_is_read_as_it_was_written_in_order_of_epochs(tmp_path: Path) -> None:
    run = Store.at(tmp_path)
    write_history(run, {"10": {"loss": 0.1}, "9": {"loss": 0.2, "progress_sources_0": [None]}})
    rows = read_history(run)
    assert [row["epoch"] for row in rows] == [9, 10]
    assert rows[0]["progress_sources_0"] == [None]
    write_tensorboard(run, rows)
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_closed_run_gives_its_weights_and_says_what_it_is(tmp_path: Path) -> None:
    run = Store.at(tmp_path)
    save_file({"weight": torch.ones(2)}, tmp_path / MODEL)
    write_history(run, {"1": {"loss": 0.5}})
    assert finished_weights(run) is None  # not closed yet
    write_manifest(run, label="tiny", table="table/TABLE.json", state={"epoch": 1, "best": None})
    weights = finished_weights(run)
    assert weights is not None
    assert weights["weight"].tolist() == [1, 1]
    assert json.loads(run.read(MANIFEST))["sha256"].keys() == {MODEL, METRICS}


def test_a_changed_byte_of_what_a_finished_run_left_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Store.at(tmp_path)
    save_file({"weight": torch.ones(2)}, tmp_path / MODEL)
    run.write(METRICS, b'{"epoch": 1, "loss": 0.5}\n')
    run.write_json(
        MANIFEST, {"sha256": {name: sha256(run.read(name)) for name in (MODEL, METRICS)}}
    )
    assert finished_weights(run) is not None
    run.write(METRICS, b'{"epoch": 1, "loss": 0.4}\n')
    assert finished_weights(run) is None
    assert f"{run.path(METRICS)}: is cut short or garbled (its bytes differ" in caplog.text


@pytest.mark.parametrize("name", [MODEL, METRICS, MANIFEST])
@pytest.mark.parametrize("damage", [None, b"", b"\x00" * 20])
def test_what_a_finished_run_left_is_made_again_if_it_is_damaged(
    tmp_path: Path, name: str, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    run = Store.at(tmp_path)
    save_file({"weight": torch.ones(2)}, tmp_path / MODEL)
    run.write(METRICS, b'{"epoch": 1}\n')
    run.write_json(MANIFEST, {})
    assert finished_weights(run) is not None
    if damage is None:
        run.delete(name)
    else:
        run.write(name, damage)
    assert finished_weights(run) is None
    assert (run.path(name) in caplog.text) == (damage is not None or name != MANIFEST)
