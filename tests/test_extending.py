"""A reader, a strategy and a filter from a package outside the tree.

As docs/extending.md shows them; tests/test_installed.py calls them by the installed command.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from discl_ray.config import load_config
from discl_ray.data import list_dataset
from discl_ray.data.config import OutsideConfig
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.open import Spectrum

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tests" / "outside" / "own_shapes.py"
PAGE = ROOT / "docs" / "extending.md"


def blocks(language: str) -> list[str]:
    """The fenced blocks of the page in one language."""
    page = PAGE.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def own_yaml() -> str:
    """The configuration that the page shows."""
    (shown,) = blocks("yaml")
    return shown


@pytest.fixture(scope="module")
def own_shapes(tmp_path_factory):
    """The module, imported from a folder that is not in the tree."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copy(PACKAGE, folder)
    sys.path.insert(0, str(folder))
    import own_shapes

    yield own_shapes
    sys.path.remove(str(folder))
    del sys.modules["own_shapes"]


def test_the_page_shows_the_whole_module_that_runs_here():
    assert "\n\n".join(blocks("python")) == PACKAGE.read_text("utf-8")


def test_the_configuration_of_the_page_names_the_functions_of_the_module(own_shapes, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(own_yaml())
    config = load_config(file, [])
    for name in (config.data.name, config.curriculum.strategy, config.filter.mode):
        module, _, function = name.partition(":")
        assert module == "own_shapes"
        assert callable(getattr(own_shapes, function))
    assert config.run.name == "own"


def test_an_overwritten_file_changes_the_stamp_of_the_reader_of_files(own_shapes, tmp_path):
    for name in ("cat-1", "cat-2", "dog-1"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    config = OutsideConfig(name="own_shapes:read_named", root=str(tmp_path))
    listing = list_dataset(config, 0)
    assert listing.table["class_key"].to_pylist() == ["cat", "cat", "dog"]
    images = list(listing.read(listing.root, listing.table))
    assert all(isinstance(image, bytes) for image in images)
    assert list_dataset(config, 0).stamp == listing.stamp
    Image.new("RGB", (9, 9), "red").save(tmp_path / "cat-1.png")
    assert list_dataset(config, 0).stamp != listing.stamp


def test_a_filter_judges_made_and_real_images_and_its_result_is_checked(own_shapes, spectrum_run):
    _, run = spectrum_run
    spectrum = Spectrum.open(run.store)
    config = FilterConfig(mode="own_shapes:near_its_source", options={"least": -1.0})
    assert all(spectrum.table(config, [])["kept"].to_pylist())
    none = config.model_copy(update={"options": {"least": 1.1}})
    assert set(spectrum.table(none, [])["reason"].to_pylist()) == {"filter"}
