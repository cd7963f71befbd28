"""An open_clip folder, name or checkpoint is checked without loading it; more in tests/models."""

import shutil
from pathlib import Path

import pytest

from discl_ray.embedded import SCORER
from discl_ray.errors import ModelError
from discl_ray.score.config import ScorerConfig
from discl_ray.score.model_folder import (
    CHECKED,
    FIRST,
    LOCAL,
    check_scorer,
    definition,
    open_clip_name,
    scorer_fingerprint,
    scorer_warnings,
)


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(SCORER, tmp_path / "model"))


def refusal(**config) -> str:
    with pytest.raises(ModelError) as caught:
        open_clip_name(ScorerConfig(**config))
    return str(caught.value)


def test_a_folder_is_named_by_its_place_and_a_name_by_itself(folder) -> None:
    assert open_clip_name(ScorerConfig()) == f"{LOCAL}{SCORER}"
    assert open_clip_name(ScorerConfig(model=str(folder))) == f"{LOCAL}{folder}"
    named = ScorerConfig(model="ViT-B-32", pretrained="openai")
    assert open_clip_name(named) == "ViT-B-32"
    assert definition("ViT-B/32") == "ViT-B-32"


def test_a_folder_that_is_missing_or_not_whole_is_refused(folder, tmp_path) -> None:
    assert "no such folder" in refusal(model=str(tmp_path / "nowhere"))
    (folder / "more.bin").write_bytes(b"")
    assert open_clip_name(ScorerConfig(model=str(folder)))  # it loads the safetensors first
    (folder / FIRST[0]).rename(folder / "other.safetensors")
    assert f"more.bin, which is pickled; remove it or name the weights {FIRST[0]}" in refusal(
        model=str(folder)
    )
    (folder / "other.safetensors").unlink()
    assert "no *.safetensors file" in refusal(model=str(folder))
    (folder / "open_clip_config.json").unlink()
    assert "no open_clip_config.json" in refusal(model=str(folder))


def test_a_checkpoint_is_a_tag_or_safetensors_that_are_there(tmp_path) -> None:
    pickled = tmp_path / "weights.pt"
    pickled.write_bytes(b"")
    assert "neither a tag of open_clip" in refusal(model="ViT-B-32", pretrained=str(pickled))
    missing = tmp_path / "weights.safetensors"
    assert "no such file" in refusal(model="ViT-B-32", pretrained=str(missing))


def test_what_was_checked_is_not_checked_again(folder) -> None:
    checked = set(CHECKED)
    check_scorer(ScorerConfig())
    check_scorer(ScorerConfig(model=str(folder)))  # the same files in another place
    assert checked == CHECKED
    (folder / FIRST[0]).write_bytes(b"cut short")
    with pytest.raises(ModelError):
        check_scorer(ScorerConfig(model=str(folder)))


def test_the_fingerprint_is_of_the_files_not_of_their_place(folder) -> None:
    embedded = scorer_fingerprint(ScorerConfig())
    moved = ScorerConfig(model=str(folder))
    assert scorer_fingerprint(moved) == embedded
    config = folder / "open_clip_config.json"
    config.write_text(f"{config.read_text()} ")
    assert scorer_fingerprint(moved) != embedded
    tag = ScorerConfig(model="ViT-B-32", pretrained="openai")
    other = ScorerConfig(model="ViT-B-32", pretrained="laion2b_s34b_b79k")
    assert len({scorer_fingerprint(tag), scorer_fingerprint(other), embedded}) == 3


def test_a_config_beside_a_checkpoint_has_to_have_the_models_activation(folder) -> None:
    file = folder / FIRST[0]
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}}')
    with pytest.raises(ModelError, match="says quick_gelu = true"):
        check_scorer(ScorerConfig(model="ViT-B-32", pretrained=str(file)))


def test_weights_that_are_not_used_and_activations_that_are_not_told_are_warned_of(
    folder, tmp_path
) -> None:
    assert scorer_warnings(ScorerConfig()) == []
    (unused,) = scorer_warnings(ScorerConfig(pretrained="openai"))
    assert "openai is not used" in unused
    alone = tmp_path / "alone.safetensors"
    shutil.copy(folder / FIRST[0], alone)
    (told,) = scorer_warnings(ScorerConfig(model="ViT-B-32", pretrained=str(alone)))
    assert "takes GELU" in told
    assert told.endswith("set scorer.model=ViT-B-32-quickgelu")
