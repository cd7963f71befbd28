import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal import constants
from safetensors.torch import save_file

from discl_ray.core.ids import sha256
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.train import trainer
from discl_ray.train.checkpoint import load_checkpoint, save_checkpoint
from discl_ray.train.trainer import _name_the_cluster, _Unguarded


def test_only_a_guarded_run_has_ray_trains_guard() -> None:
    """Both by the names that this version of Ray gives them: without them every run would end 12 s late again."""
    callbacks = {
        kind: [
            type(c).__name__
            for c in kind(
                print, scaling_config=ScalingConfig(num_workers=1)
            )._create_default_callbacks()
        ]
        for kind in (TorchTrainer, _Unguarded)
    }
    guard = "PlacementGroupCleanerCallback"
    assert guard in callbacks[TorchTrainer]
    assert callbacks[_Unguarded] == [name for name in callbacks[TorchTrainer] if name != guard]


def test_ray_trains_controller_need_not_import_pytorch_to_end_a_run() -> None:
    script = "import sys, discl_ray.train.failures; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_guard_asks_this_ray_and_no_other(
    ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(constants, "ENV_VARS_TO_PROPAGATE", set(constants.ENV_VARS_TO_PROPAGATE))
    _name_the_cluster()
    assert (
        constants.get_env_vars_to_propagate()["RAY_ADDRESS"]
        == ray.get_runtime_context().gcs_address
    )


@pytest.fixture
def begun(tmp_path: Path) -> Store:
    """A run that was killed with two checkpoints, of epochs 1 and 2."""
    for epoch in (1, 2):
        folder = tmp_path / trainer.RAY_TRAIN / f"checkpoint_{epoch}"
        folder.mkdir(parents=True)
        state = {"epoch": epoch, "curriculum": {}, "strength": [], "best": None, "optimizer": {}}
        save_checkpoint(folder, {**state, "model": {"weight": torch.zeros(2)}})
    store = Store.at(tmp_path)
    assert trainer.mend_list(store) == "checkpoint_2"  # there was no list at all
    return store


def test_a_whole_list_of_checkpoints_is_left_alone(
    begun: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = begun.read(trainer.LIST)
    assert trainer.mend_list(begun) == "checkpoint_2"
    assert begun.read(trainer.LIST) == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "damage", [b"", b'{"ray_version": "2.5', b"\x00\xff" * 40, b"[]", b'{"checkpoint_results": []}']
)
def test_a_damaged_list_of_checkpoints_is_written_again(
    begun: Store, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    before = begun.read(trainer.LIST)
    begun.write(trainer.LIST, damage)
    trainer._say_where_it_goes_on(begun, "tiny", 5)
    said = capsys.readouterr().out
    assert f"{begun.path(trainer.LIST)}: is cut short or garbled" in said
    assert "tiny: goes on at epoch 3 of 5 from checkpoint_2" in said
    assert begun.read(trainer.LIST) == before


def test_a_list_that_names_what_is_gone_is_written_again(begun: Store, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / trainer.RAY_TRAIN / "checkpoint_2")
    assert trainer.mend_list(begun) == "checkpoint_1"
    shutil.rmtree(tmp_path / trainer.RAY_TRAIN / "checkpoint_1")
    assert trainer.mend_list(begun) is None
    assert not begun.exists(trainer.LIST)  # Ray Train begins anew


@pytest.mark.parametrize("cut", ["model.safetensors", "optimizer.pt", "state.json"])
def test_a_run_that_ended_over_its_first_checkpoint_begins_anew(
    begun: Store, cut: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed, or the disk was full: part of a folder, and no list yet."""
    begun.delete(trainer.LIST)
    begun.filesystem.delete_dir(begun.path(f"{trainer.RAY_TRAIN}/checkpoint_1"))
    begun.write(f"{trainer.RAY_TRAIN}/checkpoint_2/{cut}", b"")
    trainer._say_where_it_goes_on(begun, "tiny", 5)
    assert (
        capsys.readouterr().out
        == f"  {begun.path(trainer.RAY_TRAIN)}: ended over its first checkpoint; begins anew\n"
    )
    assert begun.folders(trainer.RAY_TRAIN) == []
    assert not begun.exists(trainer.LIST)


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(
    begun: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    begun.write(f"{trainer.RAY_TRAIN}/checkpoint_2/model.safetensors", b"no weights")
    trainer._say_where_it_goes_on(begun, "tiny", 5)
    said = capsys.readouterr().out
    assert "checkpoint_2: the checkpoint is damaged" in said
    assert "tiny: goes on at epoch 2 of 5 from checkpoint_1" in said


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json", "SHA256SUMS"])
def test_a_changed_byte_of_a_checkpoint_is_found(begun: Store, name: str) -> None:
    file = f"{trainer.RAY_TRAIN}/checkpoint_2/{name}"
    data = bytearray(begun.read(file))
    data[-3] ^= 1
    begun.write(file, bytes(data))
    with pytest.raises(IntegrityError, match=r"checkpoint_2: the checkpoint is damaged: "):
        load_checkpoint(begun.local / trainer.RAY_TRAIN / "checkpoint_2")


def test_a_checkpoint_of_an_earlier_version_has_no_sums(begun: Store) -> None:
    begun.delete(f"{trainer.RAY_TRAIN}/checkpoint_2/SHA256SUMS")
    assert load_checkpoint(begun.local / trainer.RAY_TRAIN / "checkpoint_2")["epoch"] == 2
    begun.write(f"{trainer.RAY_TRAIN}/checkpoint_2/state.json", b"[]")
    with pytest.raises(IntegrityError, match="damaged"):
        load_checkpoint(begun.local / trainer.RAY_TRAIN / "checkpoint_2")


def test_damaged_checkpoints_are_named_with_what_to_delete(begun: Store) -> None:
    for number in (1, 2):
        begun.write(f"{trainer.RAY_TRAIN}/checkpoint_{number}/state.json", b"")
    words = f"delete {begun.path(trainer.RAY_TRAIN)} and run the command again, which trains from the start"
    with pytest.raises(IntegrityError, match=words):
        trainer._say_where_it_goes_on(begun, "tiny", 5)


def test_a_changed_byte_of_what_a_finished_run_left_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Store.at(tmp_path)
    save_file({"weight": torch.ones(2)}, tmp_path / trainer.MODEL)
    run.write(trainer.METRICS, b'{"epoch": 1, "loss": 0.5}\n')
    run.write_json(
        MANIFEST,
        {"sha256": {name: sha256(run.read(name)) for name in (trainer.MODEL, trainer.METRICS)}},
    )
    assert trainer._left_weights(run) is not None
    run.write(trainer.METRICS, b'{"epoch": 1, "loss": 0.4}\n')
    assert trainer._left_weights(run) is None
    assert (
        f"{run.path(trainer.METRICS)}: is cut short or garbled (its bytes differ"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("name", [trainer.MODEL, trainer.METRICS, MANIFEST])
@pytest.mark.parametrize("damage", [None, b"", b"\x00" * 20])
def test_what_a_finished_run_left_is_made_again_if_it_is_damaged(
    tmp_path: Path, name: str, damage: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Store.at(tmp_path)
    save_file({"weight": torch.ones(2)}, tmp_path / trainer.MODEL)
    run.write(trainer.METRICS, b'{"epoch": 1}\n')
    run.write_json(MANIFEST, {})
    assert trainer._left_weights(run) is not None
    if damage is None:
        run.delete(name)
    else:
        run.write(name, damage)
    assert trainer._left_weights(run) is None
    assert (run.path(name) in capsys.readouterr().out) == (damage is not None or name != MANIFEST)
