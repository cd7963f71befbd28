"""A reader, a strategy and a filter from a package outside the tree.

As docs/extending.md shows them; tests/test_installed.py calls them by the installed command.
"""

import inspect
import shutil
import sys
from pathlib import Path

import pytest

from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.open import Spectrum

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tests" / "outside" / "own_shapes.py"
PAGE = ROOT / "docs" / "extending.md"
NAMED = ("data.name=own_shapes:read", "data.options={count: 16}", "generator.allow_embedded=true")
OWN = ("curriculum.strategy=own_shapes:back_and_forth", "curriculum.options.period=2")
FILTER = ("filter.mode=own_shapes:near_its_source", "filter.options.least=0.2")


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


@pytest.mark.parametrize("name", ["read", "back_and_forth", "near_its_source"])
def test_the_page_shows_the_functions_that_run_here(own_shapes, name):
    assert inspect.getsource(getattr(own_shapes, name)) in PAGE.read_text("utf-8")


def test_every_key_of_the_example_is_on_the_page():
    page = PAGE.read_text("utf-8")
    for word in (NAMED[0], OWN[0], FILTER[0]):
        assert word in page


def test_a_filter_judges_made_and_real_images_and_its_result_is_checked(own_shapes, spectrum_run):
    _, run = spectrum_run
    spectrum = Spectrum.open(run.store)
    config = FilterConfig(mode="own_shapes:near_its_source", options={"least": -1.0})
    assert all(spectrum.table(config, [])["kept"].to_pylist())
    none = config.model_copy(update={"options": {"least": 1.1}})
    assert set(spectrum.table(none, [])["reason"].to_pylist()) == {"filter"}
