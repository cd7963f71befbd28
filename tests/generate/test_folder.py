import json
import shutil
from pathlib import Path

import pytest

from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.folder import PARTS, check_folder, find_model, fingerprint


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(GENERATOR, tmp_path / "model"))


def refusal(folder):
    with pytest.raises(ModelError) as caught:
        check_folder(folder)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_embedded_folder_and_its_copy_are_accepted(folder):
    check_folder(find_model("embedded"))
    assert find_model(str(folder)) == folder
    check_folder(folder)


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_missing_part_is_named(folder, part):
    shutil.rmtree(folder / part)
    assert f"part '{part}' is missing" in refusal(folder)


@pytest.mark.parametrize("part", sorted(p for p, weights in PARTS.items() if weights))
def test_pickled_weights_are_not_enough(folder, part):
    for file in (folder / part).glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    message = refusal(folder)
    assert str(folder / part) in message
    assert "safetensors" in message


def test_another_family_is_named(folder):
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "FluxPipeline"}))
    assert "_class_name = 'FluxPipeline'" in refusal(folder)


def test_a_folder_without_an_index_is_named(folder):
    (folder / "model_index.json").unlink()
    assert f"{folder}: no model_index.json" in refusal(folder)


def test_an_index_that_is_no_json_is_named(folder):
    (folder / "model_index.json").write_text('{"_class_name": "Stable')
    assert "model_index.json" in refusal(folder)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere", "embeded", "a/b/c"])
def test_a_missing_folder_is_named_without_asking_the_hub(name, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match="no such folder") as caught:
        find_model(name)
    assert f"'{name}'" in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_a_model_error_with_the_way_out(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match="hf download owner/name"):
        find_model("owner/name")


def test_the_hub_is_never_asked_for_pickled_weights(monkeypatch, tmp_path):
    import huggingface_hub

    asked = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda model, **kw: asked.update(kw) or str(tmp_path))
    assert find_model("owner/name", "abc") == tmp_path
    assert asked["revision"] == "abc"
    assert not [p for p in asked["allow_patterns"] if p.endswith((".bin", ".ckpt", ".pt", "*", ".py"))]


def test_the_fingerprint_sees_weights_and_settings_but_not_how_it_runs(folder):
    base = fingerprint(GeneratorConfig(), folder, 30)
    assert fingerprint(GeneratorConfig(), GENERATOR, 30) == base
    same = GeneratorConfig(micro_batch=1, actors=3, threads=7, decode_batch=2, num_gpus=1, model="elsewhere")
    assert fingerprint(same, folder, 30) == base
    prints = {base, fingerprint(GeneratorConfig(), folder, 31)}
    for change in ({"cfg_scale": 5.0}, {"dtype": "bfloat16"}, {"codec": "webp"}):
        prints.add(fingerprint(GeneratorConfig(**change), folder, 30))
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    prints.add(fingerprint(GeneratorConfig(), folder, 30))
    assert len(prints) == 6
