from pathlib import Path

import pytest

from discl_ray.core import presets

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["sd15", "sd15.yaml", "conf/sd15.yaml", "conf/sd15"])
def test_a_preset_is_found_by_name_or_path_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert presets.find(name) == ROOT / "conf" / "sd15.yaml"
    assert presets.find("conf/prompts/scenes.yaml") == ROOT / "conf" / "prompts" / "scenes.yaml"


def test_a_file_that_is_there_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sd15.yaml").write_text("seed: 1\n")
    assert presets.find("sd15.yaml") == Path("sd15.yaml")


@pytest.mark.parametrize("name", ["nothing", "/nowhere/sd15.yaml", "../sd15", "conf/../sd15.yaml"])
def test_what_is_no_preset_stays_the_path_it_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert presets.find(name) == Path(name)


def test_every_yaml_of_conf_is_a_preset():
    assert presets.names() == sorted(p.stem for p in (ROOT / "conf").glob("*.yaml"))
