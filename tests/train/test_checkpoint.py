from pathlib import Path

import pytest
import torch

from discl_ray.errors import IntegrityError
from discl_ray.train.checkpoint import (
    Best,
    LoopState,
    kept_weights,
    load_checkpoint,
    save_checkpoint,
)

FILES = ("model.safetensors", "optimizer.pt", "state.json", "SHA256SUMS")


@pytest.fixture
def saved(tmp_path: Path) -> LoopState:
    """A state whose checkpoint is in `tmp_path`."""
    state = LoopState(
        epoch=2,
        model={"weight": torch.arange(6.0).view(1, 2, 3).transpose(1, 2)},
        best=None,
        optimizer={"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
        strength=[0, 3],
        curriculum={"history": {"1": {"loss": 0.5}, "2": {"loss": 0.25}}},
    )
    save_checkpoint(tmp_path, state)
    return state


def test_a_state_is_loaded_as_it_was_saved(saved: LoopState, tmp_path: Path) -> None:
    loaded = load_checkpoint(tmp_path)
    assert torch.equal(loaded.model["weight"], saved.model["weight"])
    assert loaded.history == saved.history
    assert (loaded.epoch, loaded.best, loaded.strength) == (2, None, [0, 3])
    assert loaded.optimizer == saved.optimizer
    assert kept_weights(tmp_path).name == "model.safetensors"


def test_the_best_weights_are_kept_beside_the_last(saved: LoopState, tmp_path: Path) -> None:
    best = Best(epoch=1, value=61.5, model={"weight": torch.ones(2)})
    folder = tmp_path / "best"
    folder.mkdir()
    save_checkpoint(folder, LoopState(**{**vars(saved), "best": best}))
    loaded = load_checkpoint(folder).best
    assert loaded is not None
    assert (loaded.epoch, loaded.value) == (1, 61.5)
    assert loaded.model["weight"].tolist() == [1, 1]
    assert kept_weights(folder).name == "best.safetensors"


@pytest.mark.parametrize("name", FILES[:3])
def test_a_file_that_was_cut_short_is_called_damaged(
    saved: LoopState, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    with pytest.raises(IntegrityError, match="the checkpoint is damaged"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_of_a_checkpoint_is_found(
    saved: LoopState, tmp_path: Path, name: str
) -> None:
    data = bytearray((tmp_path / name).read_bytes())
    data[-3] ^= 1
    (tmp_path / name).write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=r"the checkpoint is damaged: "):
        load_checkpoint(tmp_path)


def test_a_checkpoint_of_an_earlier_version_has_no_sums(saved: LoopState, tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").unlink()
    assert load_checkpoint(tmp_path).epoch == 2
    (tmp_path / "state.json").write_text("[]")
    with pytest.raises(IntegrityError, match="damaged"):
        load_checkpoint(tmp_path)
