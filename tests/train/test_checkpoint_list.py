import logging
import shutil
from pathlib import Path

import pytest
import torch

from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.train.checkpoint import LoopState, save_checkpoint
from discl_ray.train.checkpoint_list import LIST, RAY_TRAIN, log_where_it_goes_on, mend_list


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def begun(tmp_path: Path) -> Store:
    """A run that was killed with two checkpoints, of epochs 1 and 2."""
    for epoch in (1, 2):
        folder = tmp_path / RAY_TRAIN / f"checkpoint_{epoch}"
        folder.mkdir(parents=True)
        state = LoopState(
            epoch=epoch,
            model={"weight": torch.zeros(2)},
            best=None,
            optimizer={},
            strength=[],
            curriculum={},
        )
        save_checkpoint(folder, state)
    store = Store.at(tmp_path)
    assert mend_list(store) == "checkpoint_2"  # there was no list at all
    return store


def test_a_whole_list_of_checkpoints_is_left_alone(
    begun: Store, caplog: pytest.LogCaptureFixture
) -> None:
    before = begun.read(LIST)
    assert mend_list(begun) == "checkpoint_2"
    assert begun.read(LIST) == before
    assert caplog.text == ""


@pytest.mark.parametrize(
    "damage", [b"", b'{"ray_version": "2.5', b"\x00\xff" * 40, b"[]", b'{"checkpoint_results": []}']
)
def test_a_damaged_list_of_checkpoints_is_written_again(
    begun: Store, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = begun.read(LIST)
    begun.write(LIST, damage)
    log_where_it_goes_on(begun, "tiny", 5)
    said = caplog.text
    assert f"{begun.path(LIST)}: is cut short or garbled" in said
    assert "tiny: goes on at epoch 3 of 5 from checkpoint_2" in said
    assert begun.read(LIST) == before


def test_a_list_that_names_what_is_gone_is_written_again(begun: Store, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / RAY_TRAIN / "checkpoint_2")
    assert mend_list(begun) == "checkpoint_1"
    shutil.rmtree(tmp_path / RAY_TRAIN / "checkpoint_1")
    assert mend_list(begun) is None
    assert not begun.exists(LIST)  # Ray Train begins anew


@pytest.mark.parametrize("cut", ["model.safetensors", "optimizer.pt", "state.json"])
def test_a_run_that_ended_over_its_first_checkpoint_begins_anew(
    begun: Store, cut: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed, or the disk was full: part of a folder, and no list yet."""
    begun.delete(LIST)
    begun.filesystem.delete_dir(begun.path(f"{RAY_TRAIN}/checkpoint_1"))
    begun.write(f"{RAY_TRAIN}/checkpoint_2/{cut}", b"")
    log_where_it_goes_on(begun, "tiny", 5)
    assert caplog.messages == [
        f"{begun.path(RAY_TRAIN)}: ended over its first checkpoint; begins anew"
    ]
    assert begun.folders(RAY_TRAIN) == []
    assert not begun.exists(LIST)


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(
    begun: Store, caplog: pytest.LogCaptureFixture
) -> None:
    begun.write(f"{RAY_TRAIN}/checkpoint_2/model.safetensors", b"no weights")
    log_where_it_goes_on(begun, "tiny", 5)
    said = caplog.text
    assert "checkpoint_2: the checkpoint is damaged" in said
    assert "tiny: goes on at epoch 2 of 5 from checkpoint_1" in said


def test_damaged_checkpoints_are_named_with_what_to_delete(begun: Store) -> None:
    for number in (1, 2):
        begun.write(f"{RAY_TRAIN}/checkpoint_{number}/state.json", b"")
    words = f"delete {begun.path(RAY_TRAIN)} and run the command again, which trains from the start"
    with pytest.raises(IntegrityError, match=words):
        log_where_it_goes_on(begun, "tiny", 5)
